"""What of a study a device needs to ask its model: results.json's ``deployment``, and the rows that were asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from yaml import YAMLError

from autotune.config import StudyConfig
from autotune.errors import ConfigError, DataError, Problem
from autotune.finished import FinishedRun
from autotune.pipeline.data import read_rows
from autotune.pipeline.splits import cut_splits
from autotune.pipeline.stages import DATA_FILE
from autotune.pipeline.tokens import TokenizedData
from autotune.preparation import Prepared
from autotune.storage.entry_key import Key
from autotune.storage.store import Entry, Store
from autotune.study_file import DataSection, StudyFile
from objectives.bundle import Task, task_of
from objectives.templates import render, template_columns

Split = Literal["valid", "test"]
#: (prompt, right answer), both as text.
Pair = tuple[str, str]


@dataclass(frozen=True)
class Deployment:
    """``model`` is the base model's fingerprint, empty for a run of before there was one; ``study_dir`` is what the
    study's paths are relative to, None for such a run. ``rows`` are digests of the splits."""

    task: Task
    model: Mapping[str, str]
    study_dir: Path | None
    rows: Mapping[str, str]


def as_json(config: StudyConfig, prepared: Prepared) -> dict[str, Any]:
    """What results.json keeps, so that a bundle can be made when the store and its rows are gone."""
    data = prepared.data
    return {
        "study_dir": str(config.base_dir),
        "model": dict(prepared.fingerprint),
        "task": asdict(_task(config.file.data, data)),
        "rows": {"valid": rows_digest(_pairs(data, "valid")), "test": rows_digest(_pairs(data, "test"))},
    }


def deployment(run: FinishedRun, store: Store) -> Deployment:
    """Of a finished run. Raises ConfigError where neither results.json nor the store tells any more."""
    kept = run.document.get("deployment")
    if kept:
        try:
            return Deployment(task_of(kept["task"]), kept["model"], Path(kept["study_dir"]), kept["rows"])
        except (KeyError, TypeError) as error:
            raise ConfigError([Problem(
                str(run.root / "results.json"), "deployment", f"damaged: {type(error).__name__} {error}",
                "the file as autotune run wrote it")]) from None
    data = stored_data(run, store)
    if data is None:
        raise ConfigError([Problem(
            str(run.root / "results.json"), "deployment", "not there, and the store has the run's rows no more",
            "a run by this version: autotune run STUDY --out with this folder brings it back and trains nothing anew "
            "that the store holds")])
    return Deployment(_task(study_of(run).data, data), {}, None, {})


def study_of(run: FinishedRun) -> StudyFile:
    """The run's study.yaml, with what it leaves to the defaults. Raises ConfigError where it is damaged."""
    try:
        return StudyFile.model_validate(run.study)
    except (ValidationError, OSError, YAMLError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError([Problem(str(run.root / "study.yaml"), "", first, "the file as autotune run wrote it")]
                          ) from None


def rows_of(run: FinishedRun, store: Store, split: Split, found: Deployment) -> list[Pair]:
    """The split's prompts and right answers in the order in which they were asked: as stored, else read again.

    Raises InputError where they can be had no more, or are others by now.
    """
    data = stored_data(run, store)
    if data is not None:
        return _pairs(data, split)
    again = "the rows that the run was made with, or --samples 0"
    if found.study_dir is None:
        raise ConfigError([Problem(str(run.root), f"data.{split}", "the store has the run's rows no more", again)])
    data_file = study_of(run).data
    pairs = _read(data_file, found.study_dir, split)
    if rows_digest(pairs) != found.rows[split]:
        source = getattr(data_file, split) or data_file.train
        raise DataError([Problem(source, "", "other rows than the run was made with", again)])
    return pairs


def stored_data(run: FinishedRun, store: Store) -> TokenizedData | None:
    """The run's token ids, while the store has them."""
    entry = stored(store, run.data_key) if run.data_key else None
    return TokenizedData.load(entry.path / DATA_FILE) if entry else None


def stored(store: Store, name: str) -> Entry | None:
    """The store's entry of a key as results.json writes it, ``stage/digest``."""
    stage, _, digest = name.partition("/")
    return store.get(Key(stage, digest)) if stage.isidentifier() and digest.isalnum() else None


def rows_digest(pairs: Sequence[Pair]) -> str:
    return hashlib.sha256(json.dumps(pairs, ensure_ascii=False).encode()).hexdigest()


def _task(data_file: DataSection, data: TokenizedData) -> Task:
    return Task(data.task, data_file.prompt, data.chat, data.labels, data.label_ids, data.eos_id,
                data_file.max_new_tokens, data_file.stop)


def _pairs(data: TokenizedData, split: Split) -> list[Pair]:
    return [(e.prompt_text, e.answer_text) for e in (data.valid if split == "valid" else data.test)]


def _read(data: DataSection, study_dir: Path, split: Split) -> list[Pair]:
    """The split from the study's files, cut from the training rows where it has none of its own."""
    in_prompt, in_answer = template_columns(data.prompt), template_columns(data.answer)
    columns = list(dict.fromkeys([*in_prompt, *in_answer]))
    optional = set(in_prompt) - set(in_answer) if len(in_prompt) > 1 else set()
    own = getattr(data, split)
    rows = read_rows(own or data.train, study_dir, split if own else "train", columns, optional)
    if not own:
        prompts = [render(data.prompt, row.values) for row in rows]
        rows = cut_splits(rows, prompts, have=[name for name in ("valid", "test") if getattr(data, name)])[split]
    return [(render(data.prompt, row.values), render(data.answer, row.values)) for row in rows]
