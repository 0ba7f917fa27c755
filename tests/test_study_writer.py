"""What is written is what was meant, with every key of the study file, whatever the texts are."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autotune.config import resolve_config
from autotune.drafting.study_writer import LABELS_SHOWN, Draft, FirstLook, quoted, scalar, study_text
from autotune.study_file import StudyFile
from tests.study_keys import keys_of

CHOICE = Draft(
    name="tone", model="org/name", files={"train": "a.jsonl"}, rows={"train": 9}, prompt="### Text: {text}\n",
    answer="{tone}", task="choice", labels=[("joy", 0.6), ("no", 0.4)], constraints=["accuracy >= 0.6"], threads=2,
    prompt_tokens=20, answer_tokens=3, max_tokens=None)
LONG = dataclasses.replace(CHOICE, first_look=FirstLook(100, 8, 2, 815))
GENERATE = dataclasses.replace(CHOICE, task="generate", labels=[], constraints=[], max_tokens=2048)
NASTY = ["yes", "1", "null", "a: b", "a #b", "- a", "{a}", "'q\"", " lead", "x\ny", "\x85", "\u2028", "\ufeff", "😀",
         "~", "%", "@user", "x" * 300 + " y" * 300]


def resolved(text: str, folder: Path) -> Any:
    (folder / "a.jsonl").touch()
    return resolve_config(yaml.safe_load(text), "study.yaml", folder)


@pytest.mark.parametrize("draft", [CHOICE, LONG, GENERATE])
def test_every_key_stands_in_the_file(draft: Draft, tmp_path: Path) -> None:
    text = study_text(draft)
    other = {"choice": {"max_new_tokens", "stop", "from", "direction", "metric"},
             "generate": {"labels", "prompt_tokens", "new_tokens", "direction", "metric"}}[draft.task]
    for key in keys_of(StudyFile):
        if key.startswith("workers."):
            continue  # of a cluster; docs/study.md has them
        name = key.rpartition(".")[2]
        assert name in other or re.search(rf"(^|[ {{]){name}:", text, re.MULTILINE), key
    resolved(text, tmp_path)


def commented(text: str) -> Iterator[tuple[int, str]]:
    """Each key that is commented out, as (line number, the line with the mark taken away)."""
    for number, line in enumerate(text.splitlines()):
        if re.match(r" *# [a-z_]+: ", line):
            yield number, line.replace("# ", "", 1)


def test_a_first_look_at_many_rows_takes_fewer_steps(tmp_path: Path) -> None:
    short, long = (resolved(study_text(draft), tmp_path).space for draft in (CHOICE, LONG))
    assert long.adapter["steps"].values == (100,)
    assert "epochs" in short.adapter
    assert "epochs" not in long.adapter
    assert long.deploy == short.deploy
    assert "815" in study_text(LONG)


@pytest.mark.parametrize("draft", [CHOICE, LONG, GENERATE])
def test_every_line_that_is_commented_out_can_be_taken_as_it_is(draft: Draft, tmp_path: Path) -> None:
    text = study_text(draft)
    for split in ("valid", "test"):
        (tmp_path / f"{split}.jsonl").touch()
    found = list(commented(text))
    assert len(found) >= 12
    for number, line in found:
        lines = text.splitlines()
        lines[number] = line
        study = resolved("\n".join(lines), tmp_path)
        assert study.file.name == "tone", line


def test_limits_and_labels_are_said_in_full(tmp_path: Path) -> None:
    study = resolved(study_text(CHOICE), tmp_path)
    assert study.file.constraints == ("accuracy >= 0.6",)
    assert study.file.data.labels == ("joy", "no")
    assert study.file.data.prompt == "### Text: {text}\n"
    many = dataclasses.replace(CHOICE, labels=[(f"label {i}", 0.01) for i in range(LABELS_SHOWN + 1)])
    assert resolved(study_text(many), tmp_path).file.data.labels is None


@pytest.mark.parametrize("text", NASTY)
def test_texts_of_any_kind(text: str, tmp_path: Path) -> None:
    assert yaml.safe_load(scalar(text)) == yaml.safe_load(quoted(text)) == text
    draft = dataclasses.replace(CHOICE, labels=[(text, 0.5), ("other", 0.5)], model=text, prompt=text + "{a}")
    found = yaml.safe_load(study_text(draft))
    assert (found["model"], found["data"]["labels"], found["data"]["prompt"]) == (text, [text, "other"], text + "{a}")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_comes_back(text: str) -> None:
    assert yaml.safe_load(f"a: {scalar(text)}  # c\nb: {quoted(text)}") == {"a": text, "b": text}
