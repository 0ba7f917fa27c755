"""A finished run as pandas tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.finished import FinishedRun, FinishedTrial

if TYPE_CHECKING:
    import pandas as pd


def trials_frame(run: FinishedRun) -> pd.DataFrame:
    """A row a trial, indexed by its number.

    The columns are, in this order: ``state``, ``deploy_point``; each parameter; each measured value by its key
    (``accuracy``, ``latency_ms.p50``), the study's objectives first, followed by ``KEY.low``, ``KEY.high`` (the ends of
    its interval, NaN where they are not known) and ``KEY.n`` (the rows or requests that it was made of); each limit by
    its expression (PASS, FAIL, INCONCLUSIVE); ``feasible``, ``on_front``, ``tied_with``, ``artifact``, ``reason``.
    """
    import pandas as pd

    params = _unique(name for trial in run.trials for name in trial.params)
    keys = _unique([*(key for key, _ in run.objectives), *(key for trial in run.trials for key in trial.values)])
    limits = [constraint.expr for constraint in run.constraints]
    values = [f"{key}{end}" for key in keys for end in ("", ".low", ".high", ".n")]
    columns = ["state", "deploy_point", *params, *values, *limits,
               "feasible", "on_front", "tied_with", "artifact", "reason"]
    index = pd.Index([trial.number for trial in run.trials], name="trial", dtype="int64")
    frame = pd.DataFrame([_row(trial) for trial in run.trials], index=index, columns=columns)
    types = {**{name: "Int64" if name.endswith(".n") else "float64" for name in values},
             "feasible": "boolean", "on_front": "bool", "tied_with": "Int64"}
    return frame.astype(types)


def events_frame(run: FinishedRun) -> pd.DataFrame:
    """A row an event of events.jsonl, in its order: ``time`` (UTC), ``event``, ``stage``, ``key``, ``seconds``,
    ``cached`` and whatever else the run wrote."""
    import pandas as pd

    frame = pd.DataFrame(run.events())
    for name in ("time", "event", "stage", "key", "seconds", "cached"):
        if name not in frame:
            frame[name] = None
    first = ["time", "event", "stage", "key", "seconds", "cached"]
    frame = frame[[*first, *(name for name in frame.columns if name not in first)]]
    return frame.assign(time=pd.to_datetime(frame["time"], unit="s", utc=True).dt.round("ms"),
                        seconds=frame["seconds"].astype("float64"), cached=frame["cached"].astype("boolean"))


def predictions_frame(path: Path) -> pd.DataFrame:
    """A row a row of the split, indexed by its number: ``reference`` and ``answer`` as text, ``right``.

    Raises OSError where there is no such file.
    """
    import pandas as pd

    frame = pd.read_csv(path, index_col="row", dtype={"reference": str, "answer": str}, keep_default_na=False)
    return frame.astype({"right": "bool"})


def _row(trial: FinishedTrial) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, m in trial.values.items():
        values |= {key: m.value, f"{key}.low": m.low, f"{key}.high": m.high, f"{key}.n": m.n}
    return {"state": trial.state, "deploy_point": trial.deploy_point, **trial.params, **values, **trial.verdicts,
            "feasible": trial.feasible, "on_front": trial.on_front, "tied_with": trial.tied_with,
            "artifact": None if trial.artifact is None else str(trial.artifact), "reason": trial.reason}


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
