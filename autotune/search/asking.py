"""Asking Optuna for an adapter: a function of what is known of the adapters so far, with no study kept in between.

What is known of an adapter changes while it trains: first nothing, then a forecast, then measured values. An Optuna
study holds a trial's values once and for all, so each ask makes a study in memory out of what is known by then. That
is cheap beside any training, and a resumed search asks what an unbroken one would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from autotune.pareto import Direction, dominates
from autotune.search.schedule import ask_seed
from search_spaces.adapter import AdapterParams
from search_spaces.space import Space, Value

#: Of the tries to find an adapter that was not proposed yet, so many are TPE's and so many random.
_TRIES, _RANDOM_TRIES = 10, 200


@dataclass(frozen=True)
class Known:
    """An adapter as the sampler is told of it: Optuna's parameters, and values that are measured or forecast.

    ``values`` is None for one of which nothing is known yet: others are then proposed elsewhere (constant liar;
    Ginsbourger, Le Riche & Carraro 2010). ``violations`` by limit, at most 0 where it holds.
    """

    params: Mapping[str, Value]
    values: tuple[float, ...] | None = None
    violations: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A proposal: the adapter, and Optuna's parameters and distributions behind it."""

    adapter: AdapterParams
    params: Mapping[str, Value]
    distributions: Mapping[str, BaseDistribution]


def ask(
    space: Space, known: Sequence[Known], taken: set[AdapterParams], directions: Sequence[Direction], seed: int,
    fixed: Mapping[str, Value] | None = None, startup: int = 6,
) -> Asked | None:
    """An adapter that is not ``taken``, by multi-objective TPE with constraints (Ozaki et al. 2022, JAIR 73:1209;
    Watanabe & Hutter 2023, IJCAI); None where none was found. The first try holds the ``fixed`` parameters.

    The seed of a study is the same for all asks; how many adapters are taken makes each another.
    """
    if len(taken) >= space.adapter_count():
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=list(directions))
    study.add_trials([t for k in known if (t := _told(space, k)) is not None])
    for attempt in range(_TRIES + _RANDOM_TRIES):
        number = ask_seed(seed, len(taken) + 100_003 * attempt)
        sampler: BaseSampler
        if attempt < _TRIES:
            sampler = TPESampler(multivariate=True, group=True, seed=number, n_startup_trials=startup)
        else:
            sampler = RandomSampler(seed=number)
        if fixed and not attempt:
            sampler = PartialFixedSampler(dict(fixed), sampler)
        study.sampler = sampler
        trial = study.ask()
        adapter = space.suggest(trial)
        if adapter not in taken:
            return Asked(adapter, trial.params, trial.distributions)
        study.tell(trial, state=TrialState.FAIL)
    return None


def best_first(known: Sequence[Known], directions: Sequence[Direction], count: int) -> list[Mapping[str, Value]]:
    """The parameters of ``count`` adapters to begin with: those that hold the limits, by non-dominated sorting (Deb
    et al. 2002, IEEE Trans. Evol. Comput. 6:182), the first value deciding within a front."""
    told = [k for k in known if k.values is not None]
    signs = [-1 if d == "maximize" else 1 for d in directions]
    signed = {id(k): [s * v for s, v in zip(signs, k.values or (), strict=True)] for k in told}

    def rank(one: Known) -> tuple[Any, ...]:
        over = sum(max(0.0, v) for v in one.violations.values())
        return over, sum(dominates(signed[id(other)], signed[id(one)]) for other in told), signed[id(one)]

    return [k.params for k in sorted(told, key=rank)[:count]]


class _Given:
    """Parameters as a space asks for them, with the distributions that it asks from.

    Raises ValueError for a value outside its dimension, KeyError for one that is missing.
    """

    def __init__(self, params: Mapping[str, Value]) -> None:
        self._given = params
        self.params: dict[str, Value] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, CategoricalDistribution(tuple(choices)))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return float(self._take(name, FloatDistribution(low, high, log=log)))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return int(self._take(name, IntDistribution(low, high, log=log)))

    def _take(self, name: str, distribution: BaseDistribution) -> Any:
        value = self._given[name]
        if not isinstance(distribution, CategoricalDistribution):
            within = distribution.low <= float(value) <= distribution.high  # type: ignore[attr-defined]
        else:
            within = value in distribution.choices
        if not within:
            raise ValueError(f"{name}: {value!r} found; accepted: {distribution}")
        self.params[name], self.distributions[name] = value, distribution
        return value


def given(space: Space, params: Mapping[str, Value]) -> Asked | None:
    """These parameters as a proposal, or None where the space does not hold them."""
    trial = _Given(params)
    try:
        adapter = space.suggest(trial)
    except (ValueError, KeyError):
        return None
    return Asked(adapter, trial.params, trial.distributions)


def _told(space: Space, known: Known) -> FrozenTrial | None:
    point = given(space, known.params)
    if point is None:  # a point that this space does not hold tells nothing of it
        return None
    complete = known.values is not None
    return create_trial(
        state=TrialState.COMPLETE if complete else TrialState.RUNNING, values=known.values,
        params=dict(point.params), distributions=dict(point.distributions),
        constraints=dict(known.violations) if complete else None,
    )
