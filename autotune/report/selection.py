"""A choice made anew, as JSON: ``autotune/selection@1``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from autotune.choosing.selection import Choice, Other, Relaxed, Selection, Shortfall
from autotune.constraints import Constraint
from autotune.finished import FinishedRun, FinishedTrial, unit_of
from autotune.report.results import interval_json

SCHEMA = "autotune/selection@1"


def as_json(run: FinishedRun, found: Selection) -> dict[str, Any]:
    """The whole selection. ``verdict``s are of the search's intervals; ``certificate_look`` is the certificate's own
    record of the chosen trial, null where it was not a finalist."""
    choice = found.choice
    return {
        "schema": SCHEMA,
        "run": str(run.root),
        "study": run.name,
        "policy": found.policy,
        "limits": [_limit(run, c) for c in found.constraints],
        "study_limits": [c.expr for c in run.constraints],
        "complete": len(run.complete),
        "feasible": found.feasible,
        "front": list(choice.front) if choice else [],
        "chosen": _chosen(run, choice) if choice else None,
        "others": [_other(run, choice, other) for other in choice.others] if choice else [],
        "nearest_miss": _miss(run, found.shortfall) if found.shortfall else None,
        "not_known": {"stopped_trials": list(found.unknown.stopped), "stopped_adapters": list(found.unknown.adapters),
                      "dropped_points": list(found.unknown.dropped)},
    }


def _limit(run: FinishedRun, constraint: Constraint) -> dict[str, Any]:
    return {"expr": constraint.expr, "objective": constraint.objective, "op": constraint.op,
            "bound": constraint.bound, "unit": unit_of(constraint.objective, run.units),
            "baseline": constraint.baseline, "of_the_study": constraint.expr in {c.expr for c in run.constraints}}


def _trial(run: FinishedRun, trial: FinishedTrial) -> dict[str, Any]:
    return {
        "trial": trial.number, "deploy_point": trial.deploy_point, "params": dict(trial.params),
        "artifact": str(trial.artifact) if trial.artifact else None,
        "values": {key: {**interval_json(m), "unit": m.unit} for key, m in trial.values.items()},
    }


def _chosen(run: FinishedRun, choice: Choice) -> dict[str, Any]:
    return {
        **_trial(run, choice.trial),
        "limits": [{"expr": h.constraint.expr, "verdict": h.verdict, **interval_json(h.value)} for h in choice.held],
        "tied_with": [other.trial.number for other in choice.others if other.tied],
        "certificate_look": run.look(choice.trial.number),
    }


def _other(run: FinishedRun, choice: Choice, other: Other) -> dict[str, Any]:
    return {**_trial(run, other.trial), "on_front": other.trial.number in choice.front, "tied": other.tied,
            "cheaper": other.cheaper, "differences": {key: asdict(c) for key, c in other.contrasts.items()}}


def _miss(run: FinishedRun, shortfall: Shortfall) -> dict[str, Any]:
    miss = shortfall.miss
    return {
        "trial": miss.trial, "expr": miss.expr, "shortfall": miss.shortfall, "unit": unit_of(miss.objective, run.units),
        "missed": [_relaxed(r) for r in shortfall.missed],
        "relax_one": [_relaxed(r) for r in shortfall.single],
    }


def _relaxed(relaxed: Relaxed) -> dict[str, Any]:
    return {"expr": relaxed.constraint.expr, "trial": relaxed.trial, **interval_json(relaxed.value),
            "relax_to": relaxed.expr}
