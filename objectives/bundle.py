"""A bundle's manifest as the device uses it: what is asked, how, where, and what was certified."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from objectives.exact import Interval
from objectives.integrity import MANIFEST

MODEL = "model"
SAMPLES = "samples.jsonl"


@dataclass(frozen=True)
class Task:
    """``prompt`` is the template over columns; ``labels`` and ``label_ids`` are empty for task ``generate``."""

    kind: Literal["choice", "generate"]
    prompt: str
    chat: bool
    labels: tuple[str, ...]
    label_ids: tuple[tuple[int, ...], ...]
    eos_id: int
    max_new_tokens: int
    stop: tuple[str, ...]


@dataclass(frozen=True)
class Workload:
    """What latency is measured on: fixed token counts, or the sample rows' own prompts where ``prompt_tokens`` is None.
    Times are in seconds."""

    prompt_tokens: int | None
    new_tokens: int
    max_seconds: float
    sustain_seconds: float


@dataclass(frozen=True)
class Limit:
    """A constraint of the study; ``relative`` to a baseline that is not in the bundle."""

    expr: str
    objective: str
    op: str
    bound: float | None
    relative: bool


@dataclass(frozen=True)
class Sample:
    """A row: its prompt's text, the right answer, and the answer that the measured artifact gave."""

    prompt: str
    expected: str
    answer: str


@dataclass(frozen=True)
class Bundle:
    """``measured`` are the values by key, the certificate's where there is one (``certified_rows``)."""

    folder: Path
    name: str
    digest: str
    task: Task
    provider: str
    provider_options: Mapping[str, str]
    threads: int
    workload: Workload
    limits: tuple[Limit, ...]
    confidence: float
    measured: Mapping[str, Interval]
    units: Mapping[str, str]
    versions: Mapping[str, str]
    cpu: str | None

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    def samples(self) -> tuple[Sample, ...]:
        """The rows that travel with it; none where it was made without."""
        path = self.folder / SAMPLES
        lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
        rows = [json.loads(line) for line in lines if line]
        return tuple(Sample(row["prompt"], row["expected"], row["answer"]) for row in rows)


def parsed(folder: Path, manifest: Mapping[str, Any]) -> Bundle:
    """The bundle of a manifest. Raises ValueError where that lacks something."""
    try:
        return _parsed(folder, manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{MANIFEST} lacks something or is damaged: {type(error).__name__} {error}") from None


def task_of(found: Mapping[str, Any]) -> Task:
    """What ``dataclasses.asdict`` and JSON made of a Task. Raises KeyError or TypeError where it lacks something."""
    return Task(
        found["kind"], found["prompt"], found["chat"], tuple(found["labels"]),
        tuple(tuple(ids) for ids in found["label_ids"]), found["eos_id"], found["max_new_tokens"],
        tuple(found["stop"]))


def _parsed(folder: Path, found: Mapping[str, Any]) -> Bundle:
    target, workload = found["target"], found["workload"]
    return Bundle(
        folder=folder, name=f"{found['study']['name']}, trial {found['trial']} ({found['deploy_point']})",
        digest=found["digest"],
        task=task_of(found["task"]),
        provider=target["provider"], provider_options=target["provider_options"], threads=target["threads"],
        workload=Workload(**workload),
        limits=tuple(_limit(limit) for limit in found["constraints"]),
        confidence=found["confidence"],
        measured={key: Interval(m["value"], m["low"], m["high"], m["n"]) for key, m in found["measurements"].items()},
        units={key: m["unit"] for key, m in found["measurements"].items()},
        versions=found["measured_with"]["versions"], cpu=found["measured_with"]["machine"].get("cpu"),
    )


def _limit(found: Mapping[str, Any]) -> Limit:
    return Limit(found["expr"], found["objective"], found["op"], found["bound"], found["baseline"] is not None)
