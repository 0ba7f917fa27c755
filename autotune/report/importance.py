"""Which parameters mattered for each objective, asked of Optuna's own record of the visible trials."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from autotune.finished import FinishedRun
from autotune.report.parameters import DEPLOY_NAMES
from objectives.base import is_answers

#: What Optuna advises to have among the best ones, and the share of all that they are by default.
_BEST, _SHARE = 5, 0.1
_FEWEST = 4


@dataclass(frozen=True)
class Importance:
    """``shares`` sum to 1 for each objective, or are empty where no parameter can be told from chance to matter.

    ``best`` of ``trials`` complete ones are those that the shares speak of.
    """

    objective: str
    shares: Mapping[str, float]
    best: int
    trials: int


@dataclass(frozen=True)
class Importances:
    """``warning`` says why there are none, or why they are a hint at best; empty where they can be relied on."""

    found: tuple[Importance, ...]
    warning: str


def importances(run: FinishedRun) -> Importances:
    """PED-ANOVA (Watanabe, Bansal & Hutter 2023, arXiv 2304.10255) over the complete trials of study.db: in what the
    parameters of the best trials differ from those of all.

    The best are a tenth, or five where a tenth are fewer, but never more than half.
    """
    study = _study(run)
    if study is None:
        return Importances((), "The run folder has no study.db that could be read, so this is not known.")
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    names = {name for trial in complete for name in trial.params
             if len({repr(t.params.get(name)) for t in complete}) > 1}
    if len(complete) < _FEWEST or not names:
        return Importances((), f"{len(complete)} complete trial{'s' * (len(complete) != 1)} cannot tell which "
                               "parameters matter." if names or not complete else "No parameter was varied.")
    found = tuple(_importance(study, index, key, direction == "maximize", _may_matter(run, key, names), len(complete))
                  for index, (key, direction) in enumerate(run.objectives))
    needed = round(_BEST / _SHARE)
    few = (f"With {len(complete)} complete trials this is a hint at best; about {needed} are needed for the order to "
           "mean much.") if len(complete) < needed else ""
    return Importances(found, few)


def _may_matter(run: FinishedRun, key: str, names: set[str]) -> list[str]:
    """What was measured once for a deploy point cannot depend on the adapter: its parameters are left out, as their
    share would be chance."""
    if is_answers(key):
        return sorted(names)
    seen: dict[str, set[float]] = {}
    for trial in run.complete:
        seen.setdefault(trial.deploy_point, set()).add(trial.values[key].value)
    return sorted(names & DEPLOY_NAMES if all(len(values) == 1 for values in seen.values()) else names)


def _study(run: FinishedRun) -> optuna.Study | None:
    path: Path = run.root / "study.db"
    if not path.is_file():
        return None  # opening it would make one
    try:
        return optuna.load_study(study_name=run.name, storage=f"sqlite:///{path}")
    except (KeyError, SQLAlchemyError, RuntimeError):
        return None


def _importance(
    study: optuna.Study, index: int, key: str, maximize: bool, names: list[str], trials: int
) -> Importance:
    if not names:
        return Importance(key, {}, 0, trials)
    best = min(trials // 2, max(_BEST, round(_SHARE * trials)))

    def loss(trial: FrozenTrial) -> float:
        return -float(trial.values[index]) if maximize else float(trial.values[index])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a target is taken to be minimized: it is, by ``loss``
        raw = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=best / trials),
                                    params=names, target=loss, normalize=False)
    total = sum(raw.values())
    shares = {name: value / total for name, value in sorted(raw.items(), key=lambda i: -i[1])} if total > 0 else {}
    return Importance(key, shares, best, trials)
