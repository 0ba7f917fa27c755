"""The parameters of trials as reports show them: those that a study varied, and their values in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from autotune.finished import FinishedTrial
from autotune.report.terminal import describe
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

DEPLOY_NAMES = frozenset(f.name for f in fields(DeployParams))


def varied(trials: Sequence[FinishedTrial], deploy: bool = True) -> list[str]:
    """Names of the parameters with more than one value, in the trials' own order; without ``deploy`` those of
    adapters alone, as a deploy point's label tells the rest."""
    names = dict.fromkeys(name for trial in trials for name in trial.params if deploy or name not in DEPLOY_NAMES)
    return [name for name in names if len({repr(t.params.get(name)) for t in trials}) > 1]


def told(value: Any) -> str:
    """A parameter's value: numbers short, ``–`` for what is not set."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def adapter_text(params: Mapping[str, Any]) -> str:
    """The adapter of a trial in a few words."""
    return describe(AdapterParams(**{f.name: params[f.name] for f in fields(AdapterParams) if f.name in params}))
