"""Trains adapters in rungs by the real stages, in a process of its own: to be killed, or to have company.

    python -m tests.rung_process FOLDER RUN RUNGS

``FOLDER`` has ``base`` and ``data``, and gets the store; RUN names the run folder in it. Trains the first RUNGS rungs
of each of ``JOBS`` together, says so on a line each, and waits to be killed unless they are all.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from autotune.machine_lock import MachineLock
from autotune.pipeline.rungs import RungJob, rung_steps
from autotune.report.terminal import Terminal
from autotune.run_folder import RunFolder
from autotune.storage.entry_key import make_key
from autotune.storage.stage_runner import StageRunner
from autotune.storage.store import Entry, Store
from autotune.workers import Worker
from search_spaces.adapter import AdapterParams

FRACTIONS = (0.2, 0.4, 1)
PARAMS = AdapterParams(rank=4, alpha=8, learning_rate=5e-3, dropout=0.1, batch_size=4, steps=40)
JOBS = (PARAMS, replace(PARAMS, rank=8, steps=30))


def job(params: AdapterParams, rung: int) -> RungJob:
    return RungJob(params, 3, rung_steps(params, 36, FRACTIONS), rung)


class Bench:
    """The base, the data and a runner of their stages."""

    def __init__(self, folder: Path, run: RunFolder, worker: Worker, store: str = "store") -> None:
        self.store = Store(folder / store)
        self.run, self.worker = run, worker
        self.runner = StageRunner(self.store, worker, run, Terminal(quiet=True), MachineLock(folder / "lock"))
        self.base = Entry(make_key("base", 1, {}), folder / "base", 0.0, cached=True)
        self.data = Entry(make_key("data", 1, {}), folder / "data", 0.0, cached=True)

    def train(self, rung: int, *params: AdapterParams) -> list[Entry]:
        """Those adapters to that rung; the test fails where one cannot be trained."""
        found = self.runner.rungs(self.base, self.data, [job(own, rung) for own in params], 1)
        return [entry for entry in found if isinstance(entry, Entry)]


@contextmanager
def bench(folder: Path, run: str, store: str = "store") -> Iterator[Bench]:
    with RunFolder(folder / run, "0" * 64, {}) as opened:
        worker = Worker(opened.log)
        try:
            yield Bench(folder, opened, worker, store)
        finally:
            worker.close()


def main(folder: Path, run: str, rungs: int) -> None:
    with bench(folder, run) as made:
        for rung in range(rungs):
            assert len(made.train(rung, *JOBS)) == len(JOBS)
            print(f"rung {rung}", flush=True)
        if rungs < len(FRACTIONS):
            time.sleep(300)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
