"""What MLflow is told of a run: the study's own entry and one a trial, as plain params, metrics and tags."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from autotune.finished import FinishedRun, FinishedTrial
from autotune.report.told import VERDICTS, exit_code, outcome
from autotune.stats import Measurement
from autotune.study_file import MAY_CHANGE

Status = Literal["FINISHED", "FAILED", "KILLED"]
#: A trial that was stopped early did not fail, but it did not come to its end either.
_STATUS: dict[str, Status] = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAILED": "FAILED"}
#: MLflow's own limits on what a param and a tag hold, in characters.
_PARAM_LENGTH, _TAG_LENGTH = 6000, 5000


@dataclass(frozen=True)
class Entry:
    """One MLflow run. ``params`` never change once written, metrics and tags may."""

    name: str
    status: Status
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def study_entry(run: FinishedRun) -> Entry:
    """The study: its file as params; as metrics the selected trial's values, the certificate's where there is one."""
    study = run.study
    # MLflow's params are written once.
    fixed = dict(_flat({key: value for key, value in study.items() if key not in MAY_CHANGE}))
    cost = run.document["cost"]
    values = {} if run.selected is None else run.certified or run.trial(run.selected).values
    tags = {
        "mlflow.note.content": outcome(run.document),
        "verdict": VERDICTS[exit_code(run.document)],
        "selected": "none" if run.selected is None else str(run.selected),
        "front": json.dumps(run.front),
        "budget": json.dumps(study.get("budget", {})),
        "config_sha256": run.document["study"]["config_sha256"],
        "autotune.version": str(run.document["environment"]["autotune"]),
    }
    return Entry(
        run.name, "FINISHED", fixed,
        {**_metrics(values), "trials": float(len(run.trials)),
         **{f"cost.{name}": float(cost[name]) for name in ("wall_s", "adapters_trained")}},
        _cut(tags),
    )


def trial_entry(run: FinishedRun, trial: FinishedTrial) -> Entry:
    """One trial that has ended."""
    stages = run.record(trial.number)["stages"]
    seconds = sum(stage["seconds"] for stage in stages.values() if not stage["cached"])
    tags = {
        "state": trial.state, "deploy_point": trial.deploy_point,
        "on_front": _word(trial.on_front), "selected": _word(trial.number == run.selected),
        "tied_with": "none" if trial.tied_with is None else str(trial.tied_with),
        "verdicts": "; ".join(f"{expr}: {verdict}" for expr, verdict in trial.verdicts.items()),
        **({"feasible": _word(trial.feasible)} if trial.feasible is not None else {}),
        **({"reason": trial.reason} if trial.reason else {}),
    }
    return Entry(f"trial {trial.number} {trial.deploy_point}", _STATUS[trial.state],
                 {name: _text(value) for name, value in trial.params.items()},
                 {**_metrics(trial.values), "seconds": seconds}, _cut(tags))


def has_ended(trial: FinishedTrial) -> bool:
    return trial.state in _STATUS


def metric_name(key: str) -> str:
    """An objective's key as MLflow takes it on every platform: ``evaluate:rouge`` becomes ``evaluate.rouge``.

    Letters, digits, ``_``, ``-``, ``.`` and spaces stay; of what else there is, each character becomes a dot.
    """
    return re.sub(r"[^\w\-. ]", ".", key)


def _metrics(values: Mapping[str, Measurement]) -> dict[str, float]:
    """Each value with the ends of its interval, where they are known, and the n that it was made of."""
    found: dict[str, float] = {}
    for key, m in values.items():
        name = metric_name(key)
        ends = {f"{name}.{end}": value for end, value in (("low", m.low), ("high", m.high)) if value is not None}
        found |= {name: m.value, **ends, f"{name}.n": float(m.n)}
    return found


def _flat(section: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in section.items():
        name = f"{above}{metric_name(str(key))}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, _text(value)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:_PARAM_LENGTH]


def _word(flag: bool) -> str:
    return "true" if flag else "false"


def _cut(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: text[:_TAG_LENGTH] for name, text in tags.items()}
