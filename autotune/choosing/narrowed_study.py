"""A study of one trial alone: what makes a trial's artifact again, and certifies it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import yaml

from autotune.constraints import Constraint
from autotune.finished import FinishedRun, FinishedTrial
from autotune.pareto import Policy
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import QUANTIZED, DeployParams

#: What a recipe says of a precision that is not quantized; the other fields mean nothing there.
_PLAIN = ("precision", "prune_head")
_NAME = 60


def narrowed(run: FinishedRun, trial: FinishedTrial, constraints: Sequence[Constraint], policy: Policy) -> str:
    """The run's study with this trial as its whole space and these limits, as YAML.

    Its adapter has the parameters, seed and rows that the run trained it with, so a store that still holds it gives
    it back. Limits relative to a baseline are written as the numbers that they came to. Paths stay as they are,
    relative to the study's own folder.
    """
    study = {
        **run.study,
        "name": f"{run.name[:_NAME]}-trial-{trial.number}",  # a run folder is named after it too
        "space": _space(trial),
        "constraints": [_written(c) for c in constraints],
        "policy": policy,
        "budget": {"adapters": 1},
    }
    head = f"# Trial {trial.number} of {run.name!r} alone. Relative paths count from this file's folder.\n"
    return head + yaml.safe_dump(study, sort_keys=False, allow_unicode=True)


def _space(trial: FinishedTrial) -> dict[str, Any]:
    adapter = {f.name: trial.params[f.name] for f in dataclasses.fields(AdapterParams) if f.name in trial.params}
    adapter.pop("epochs" if adapter.get("steps") else "steps", None)
    deploy = {f.name: trial.params[f.name] for f in dataclasses.fields(DeployParams) if f.name in trial.params}
    if deploy["precision"] not in QUANTIZED:
        deploy = {name: deploy[name] for name in _PLAIN if name in deploy}
    return {"adapter": adapter, "deploy": [deploy]}


def _written(constraint: Constraint) -> str:
    if not constraint.relative:
        return constraint.expr
    return f"{constraint.objective} {constraint.op} {constraint.bound!r}"
