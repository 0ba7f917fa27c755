"""The loop of a study, its process killed before a chosen write to study.db; what stages would measure is made up.

Real stages take seconds each, and a study writes hundreds of times: only so can every write be tried. Each process is
a fork of this one that ends without any clearing up.

    python -m tests.killed_writes FOLDER FIRST:LATER …

For each pair one run, whose first process dies before its write FIRST and each later one before its write LATER, until
one gets to the end (0: no process dies). Prints what each came to, as a JSON list.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import sqlalchemy

from autotune.config import resolve_config
from autotune.errors import ProbeError, StageError, TrainingError
from autotune.pipeline import stages
from autotune.pipeline.judge import Judged
from autotune.pipeline.judgement import write
from autotune.pipeline.roundings import FULL, rounding
from autotune.pipeline.rungs import RungJob
from autotune.report.terminal import Terminal
from autotune.run_folder import RunFolder
from autotune.search.limits import Limits
from autotune.search.optuna_study import recorded
from autotune.search.schedule import Budget
from autotune.search.study import StudyLoop
from autotune.stats import Measurement
from autotune.storage.entry_key import make_key
from autotune.storage.store import Entry
from autotune.trials import INTERRUPTED, Scored, Screened, Stopped
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams
from tests import studies

POINTS = (DeployParams("int8"), DeployParams("int4"))
DIED, FINISHED, BROKEN = 9, 0, 1
_MOST_PROCESSES = 200
_ROWS = 10


def draw(*what: object) -> float:
    """0 … 1, the same for the same things."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:4]) / 2**32


def measured(accuracy: float, point: DeployParams) -> dict[str, Measurement]:
    values = {"accuracy": accuracy, "latency_ms.p50": 5.0, "size_mb": 8.0 if point.precision == "int8" else 4.0}
    return {key: Measurement(value, value, value, 10, "") for key, value in values.items()}


class Stages:
    """Stands in for the stage runner and the scorer. Some adapters never train, some pairs never answer."""

    count, working, stop = 1, None, None

    def __init__(self, root: Path) -> None:
        self._root = root

    def rungs(self, base: Any, data: Any, jobs: Sequence[RungJob], threads: int | None) -> list[Entry | StageError]:
        return [self._trained(job.params, 0 if job.last else job.step) for job in jobs]

    def adapter(self, base: Any, data: Any, params: AdapterParams, seed: int, threads: int | None) -> Entry:
        found = self._trained(params, 0)
        if isinstance(found, StageError):
            raise found
        return found

    def _trained(self, params: AdapterParams, step: int) -> Entry | StageError:
        if draw(params) < 0.25:
            return TrainingError("never trains")
        path = self._root / "adapter"
        path.mkdir(exist_ok=True)
        (path / stages.TRAINING_FILE).write_text('{"curve": [], "valid_loss": 1.0}')
        return Entry(make_key("adapter", 1, {**params.flat(), "step": step}), path, 1.0, cached=False)

    def judgement(
        self, base: Any, data: Any, trained: Entry, points: Mapping[DeployParams, Entry], rows: int, threads: int | None
    ) -> Entry:
        path = self._root / "judged"
        path.mkdir(exist_ok=True)
        right = tuple(i < _ROWS * draw(trained.key) for i in range(_ROWS))
        judged = {p: Judged(((draw(trained.key, p), 1),) * _ROWS, right) for p in (FULL, *map(rounding, points))}
        write(judged, path)
        return Entry(make_key("judged", 1, {"of": str(trained.key)}), path, 1.0, cached=False)

    def point(self, point: DeployParams) -> Entry:
        return Entry(make_key("point", 1, point.flat()), self._root, 1.0, cached=True)

    def score(self, adapter: Entry, point: DeployParams, needed: int | None = None) -> Scored:
        if draw(adapter.key, point) < 0.2:
            raise ProbeError("never answers")
        accuracy = round(draw(adapter.key) + draw(point, adapter.key), 1) / 2
        stopped = Stopped(5, 10, 1, needed, 0.002) if needed and accuracy * 10 < needed else None
        artifact = make_key("artifact", 1, {"adapter": str(adapter.key), "point": point.flat()})
        return Scored(measured(accuracy, point), {}, artifact, frozenset(), stopped, answers=("a",) * _ROWS)

    def forget(self, *_: object) -> None: ...


def search(root: Path) -> None:
    base = root.parent / "model"
    base.mkdir(exist_ok=True)
    (base / "config.json").write_text("{}")
    for name in ("train.jsonl", "valid.jsonl", "test.jsonl"):
        (root.parent / name).touch()
    config = resolve_config({**studies.study(), "constraints": ["accuracy >= 0.3"], "rungs": [0.5, 1]}, "study.yaml",
                            root.parent)
    rows = (SimpleNamespace(prompt=(1,) * 8, answer=(1,), answer_text="a"),) * _ROWS
    prepared: Any = SimpleNamespace(
        points=POINTS, reference=POINTS[0], data_entry=None,
        base=Entry(make_key("base", 1, {}), base, 1.0, cached=True),
        workload=SimpleNamespace(from_rows=False, prompt_tokens=8),
        data=SimpleNamespace(task="choice", train=rows * 4, valid=rows),
        facts=SimpleNamespace(parameters=200, embedding_parameters=50, tied=True))
    screened = [Screened(point, {k: m for k, m in measured(0.0, point).items() if k != "accuracy"}, {})
                for point in POINTS]
    stand_in: Any = Stages(root)
    with RunFolder(root, config.sha256(), {}) as folder:
        loop = StudyLoop(config, prepared, screened, stand_in, stand_in, folder, Terminal(),
                         Budget(adapters=5, trials=None, time_s=None),
                         Limits(config.constraints, "tuned", "accuracy", "maximize"), time.monotonic())
        loop.search(lambda: None)


def process(root: Path, writes: int) -> int:
    """A process of the run, which dies before its write number ``writes``: DIED, FINISHED or BROKEN."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done = 0

    def before_write(_: object) -> None:
        nonlocal done
        done += 1
        if done == writes:
            os._exit(DIED)

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "commit", before_write)
    sqlalchemy.event.listen(  # the machine stays up: what was committed is there
        sqlalchemy.engine.Engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
    code = BROKEN
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            search(root)
        code = FINISHED
    except BaseException:  # noqa: BLE001 (a fork must not go on as its parent)
        traceback.print_exc()
    finally:
        print(done, file=sys.stderr, flush=True)
        os._exit(code)


def run(root: Path, first: int, later: int) -> dict[str, Any]:
    deaths = 0
    while (code := process(root, later if deaths else first)) == DIED and deaths < _MOST_PROCESSES:
        deaths += 1
    return {"ended": code == FINISHED, "deaths": deaths, **tables(root / "study.db")}


def tables(database: Path) -> dict[str, Any]:
    """Trials and proposals, those left out that ended with their process."""
    def attrs(name: str) -> list[Any]:
        return optuna.load_study(study_name=name, storage=f"sqlite:///{database}").get_trials(deepcopy=False)

    trials = [[t.state.name, t.values, t.params, t.constraints, recorded(t)] for t in attrs("tiny")
              if recorded(t).get("failure", [INTERRUPTED])[0] != INTERRUPTED or t.state.name == "COMPLETE"]
    proposals = [[t.state.name, t.values, t.params, t.constraints] for t in attrs("tiny/proposals")
                 if "adapter" in recorded(t)]
    return {"trials": trials, "proposals": proposals}


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder, *pairs = sys.argv[1:]
    found = []
    for pair in pairs:
        first, later = map(int, pair.split(":"))
        found.append(run(Path(folder) / pair.replace(":", "-"), first, later))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
