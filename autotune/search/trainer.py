"""Adapters brought to a rung and judged there, through the stages that do it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune.errors import StageError
from autotune.pipeline import judgement, stages
from autotune.pipeline.architectures import read_config
from autotune.pipeline.rungs import RungJob, pausable, rung_steps
from autotune.preparation import Prepared
from autotune.search.rungs import AdapterState, Rung, passed_by
from autotune.storage.stage_runner import StageRunner
from autotune.storage.store import Entry
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

#: Validation rows that an adapter is judged on at a rung: the standard error of a share is then 0.06 at most.
JUDGED_ROWS = 64


#: Adapters that train together on a GPU; how many of them fit at a time is found out there.
_ON_GPU = 8


def training_width() -> int:
    """How many adapters to train together: on a CPU one, where two take twice as long (packed.width)."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return 1 if hidden or not any(Path("/dev").glob("nvidia[0-9]*")) else _ON_GPU


class Trainer:
    """``points`` gives the base's own artifact of each deploy point that adapters are judged at."""

    def __init__(
        self, prepared: Prepared, run: StageRunner, rungs: Sequence[float], seed: int, threads: int | None,
        points: Callable[[], Mapping[DeployParams, Entry]],
    ) -> None:
        self._at, self._run, self._fractions = prepared, run, tuple(rungs)
        self._seed, self._threads, self._points = seed, threads, points
        self._config = read_config(prepared.base.path)
        self._whole: dict[tuple[AdapterParams, int], Entry] = {}

    def train(self, adapters: Sequence[AdapterState], rung: int) -> list[list[Rung] | StageError]:
        """Each adapter's rungs that are new, up to ``rung``, in the order given; or why it got there not.

        One that cannot pause is trained to its end and has all its rungs at once.
        """
        jobs = [self._job(a.params, self._seed, rung) for a in adapters]
        entries = self._run.rungs(self._at.base, self._at.data_entry, jobs, self._threads)
        found: list[list[Rung] | StageError] = []
        for adapter, job, entry in zip(adapters, jobs, entries, strict=True):
            try:
                found.append(self._reached(adapter, job, rung, entry))
            except StageError as error:
                found.append(error)
        return found

    def whole(self, params: AdapterParams, seed: int | None = None) -> Entry:
        """The adapter trained to its end. Raises StageError."""
        key = params, self._seed if seed is None else seed
        if key not in self._whole:
            self._whole[key] = self._run.adapter(self._at.base, self._at.data_entry, *key, self._threads)
        return self._whole[key]

    def training(self, entry: Entry) -> Mapping[str, Any]:
        """The record of a training: ``curve``, ``valid_loss``, ``losses``, …"""
        record: dict[str, Any] = json.loads((entry.path / stages.TRAINING_FILE).read_text(encoding="utf-8"))
        return record

    def _job(self, params: AdapterParams, seed: int, rung: int) -> RungJob:
        steps = rung_steps(params, len(self._at.data.train), self._fractions)
        if pausable(params, self._config):
            return RungJob(params, seed, steps, rung)
        return RungJob(params, seed, steps[-1:], 0)

    def _reached(self, adapter: AdapterState, job: RungJob, rung: int, entry: Entry | StageError) -> list[Rung]:
        if isinstance(entry, StageError):
            raise entry
        record = self.training(entry)
        seconds = 0.0 if entry.cached else entry.seconds
        if job.last:
            self._whole[job.params, job.seed] = entry
            before = adapter.rungs[-1] if adapter.rungs else None
            passed = passed_by(before, self._fractions[len(adapter.rungs):-1])
            return [*passed, Rung(job.step, 1.0, _finite(record["valid_loss"]), {}, 0, seconds)]
        points = self._points()
        made = self._run.judgement(self._at.base, self._at.data_entry, entry, points, JUDGED_ROWS, self._threads)
        found = judgement.read(made.path, points)
        return [Rung(job.step, self._fractions[rung], found.loss, found.right, found.rows, seconds,
                     0.0 if made.cached else made.seconds)]


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
