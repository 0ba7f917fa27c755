"""The proposal study: an Optuna study whose trial is an adapter."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, PartialFixedSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from autotune.pareto import Direction
from autotune.report.terminal import describe
from autotune.report.wording import number
from autotune.search.schedule import ask_seed, first_points
from search_spaces.adapter import AdapterParams
from search_spaces.space import Space

ADAPTER = "adapter"
#: The system attribute that autotune reads back; user attributes are for people, who see them all.
RECORD = "autotune"
#: Why a trial was stopped or failed; attributes are shown by the alphabet, and this one should come early.
END_REASON = "end_reason"
_BASELINE = "baseline"
_DUPLICATE = "duplicate_of"
_DUPLICATES_BEFORE_GIVING_UP = 50


class Proposals:
    """Asks Optuna for adapters: expert points first, then TPE with constraints; no adapter twice.

    A proposal that a dead process left running is handed out again, so its adapter is not lost.
    """

    def __init__(self, study: optuna.Study, space: Space, seed: int) -> None:
        self._study = study
        self._space = space
        self._seed = seed
        self._first = first_points(space)

    def count(self) -> int:
        """Adapters proposed so far, duplicates not counted."""
        return len(self._proposed())

    def running(self) -> bool:
        """Whether an adapter was begun and not scored everywhere."""
        return any(
            ADAPTER in recorded(t)
            for t in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        )

    def next(self) -> tuple[Trial, AdapterParams] | None:
        """The next adapter to train, or None when the space holds no further one."""
        for left in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if ADAPTER in recorded(left):
                return Trial(self._study, left._trial_id), _adapter(left)
            self._study.tell(left.number, state=TrialState.FAIL)  # died before it had its parameters
        for _ in range(_DUPLICATES_BEFORE_GIVING_UP):
            known = {_adapter(t): t.number for t in self._proposed()}
            if len(known) >= self._space.adapter_count():
                return None
            trial = self._ask(len(known))
            params = self._space.suggest(trial)
            if params not in known:
                keep(trial, **{ADAPTER: params.flat()})
                trial.set_user_attr(ADAPTER, describe(params))
                return trial, params
            trial.set_user_attr(_DUPLICATE, known[params])
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def tell(self, trial: Trial, values: Sequence[float], violations: Mapping[str, float]) -> None:
        """What came of an adapter: its objectives, and the violation of each limit (at most 0: held)."""
        for expr, violation in violations.items():
            trial.set_constraint(expr, violation)
        self._study.tell(trial, list(values))

    def note_baseline(self, trial: Trial, values: Mapping[str, float], shown: Sequence[str] = ()) -> None:
        """Keep what an adapter scored at the highest precision, which relative limits may rest on; people see those
        that are ``shown``."""
        keep(trial, **{_BASELINE: dict(values)})
        for key in shown:
            trial.set_user_attr(f"{key} at the highest precision", number(values[key]))

    def baselines(self) -> list[tuple[AdapterParams, dict[str, float]]]:
        """What was noted so far, in the order of the proposals."""
        return [(_adapter(t), recorded(t)[_BASELINE]) for t in self._proposed() if _BASELINE in recorded(t)]

    def fail(self, trial: Trial, reason: str) -> None:
        trial.set_user_attr(END_REASON, reason)
        self._study.tell(trial, state=TrialState.FAIL)

    def annotate(self, words: Mapping[str, str]) -> None:
        annotate(self._study, words)

    def _proposed(self) -> list[FrozenTrial]:
        return [t for t in self._study.get_trials(deepcopy=False) if ADAPTER in recorded(t)]

    def _ask(self, known: int) -> Trial:
        # Asks that came to nothing as their process died are not counted: an unbroken run would have none.
        number = sum(ADAPTER in recorded(t) or _DUPLICATE in t.user_attrs
                     for t in self._study.get_trials(deepcopy=False))
        sampler: BaseSampler = TPESampler(
            multivariate=True, group=True, seed=ask_seed(self._seed, number), n_startup_trials=max(6, len(self._first))
        )
        if known < len(self._first) and number == known:
            sampler = PartialFixedSampler(dict(self._first[known]), sampler)
        self._study.sampler = sampler
        return self._study.ask()


def _adapter(trial: FrozenTrial) -> AdapterParams:
    return AdapterParams(**recorded(trial)[ADAPTER])


def recorded(trial: FrozenTrial) -> Mapping[str, Any]:
    """What a trial holds for autotune itself; older run folders have it among the user attributes."""
    found: Mapping[str, Any] = trial.system_attrs.get(RECORD, trial.user_attrs)
    return found


def keep(trial: Trial, **fields: Any) -> None:
    """Add to what a trial holds for autotune itself."""
    storage, number = trial.storage, trial._trial_id
    storage.set_trial_system_attr(number, RECORD, as_json({**recorded(storage.get_trial(number)), **fields}))


def annotate(study: optuna.Study, words: Mapping[str, str]) -> None:
    """Set the study's attributes for people, those that have changed."""
    before = study.user_attrs
    for name, text in words.items():
        if before.get(name) != text:
            study.set_user_attr(name, text)


def open_study(
    database: str, name: str, directions: Sequence[Direction], metric_names: Sequence[str]
) -> optuna.Study:
    """The study of that name in the database, made if it is not there."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=database, study_name=name, directions=list(directions), load_if_exists=True
    )
    if study.metric_names != list(metric_names):
        with warnings.catch_warnings():  # Optuna calls the names experimental
            warnings.simplefilter("ignore")
            study.set_metric_names(list(metric_names))
    return study


def fixed_ask(
    study: optuna.Study, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> Trial:
    """A running trial with exactly these parameters."""
    study.sampler = PartialFixedSampler(dict(params), optuna.samplers.RandomSampler(seed=0))
    return study.ask(dict(distributions))


def as_json(value: Any) -> Any:
    """A value as JSON holds it, which is how Optuna gives user attributes back."""
    return json.loads(json.dumps(value))
