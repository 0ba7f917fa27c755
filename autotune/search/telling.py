"""What the sampler is told of adapters by the search with fidelities: measured where scored, forecast elsewhere."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from autotune.search.proposals import Expected
from autotune.search.rungs import AdapterState, Plan, State
from autotune.search.schedule import proposal_values
from autotune.search.view import View
from objectives.base import SHARES


def expected(state: State, plan: Plan, keys: Sequence[str] = ("accuracy",)) -> dict[int, Expected]:
    """For each adapter that has a rung or a score behind it, by number: the values that `schedule.proposal_values`
    would give for ``keys`` were it scored everywhere, and the violation of each limit at the point where all together
    are least.

    Where an adapter decides more shares than ``plan.answers``, its forecast stands for each: one good in one is good
    in all. What is on another scale, such as latency, is expected to be what it was of the others there.
    """
    view = View.of(state, plan)
    means = {key: _means(view, key) for key in keys if key != plan.answers and not {key, plan.answers} <= set(SHARES)}
    return {a.number: _of(view, a, keys, means) for a in state.adapters if a.rungs or a.number in view.finished}


def _means(view: View, key: str) -> list[float]:
    """What was measured in the mean, by point; where nothing was, in the mean of all; 0 where nothing was at all."""
    found = [[o.values[key] for a in view.state.adapters if (o := a.scored.get(label)) and key in o.values]
             for label in view.space.labels]
    every = [value for values in found for value in values]
    return [statistics.fmean(values or every or [0.0]) for values in found]


def _of(view: View, adapter: AdapterState, keys: Sequence[str], means: Mapping[str, Sequence[float]]) -> Expected:
    found = view.forecasts.of(adapter.number)
    by_point: dict[int, dict[str, float]] = {}
    for at, label in enumerate(view.space.labels):
        value = view.space.sign * float(found.mean[at])
        outcome = adapter.scored.get(label)
        measured: Mapping[str, float] = outcome.values if outcome else {}
        by_point[at] = {**dict.fromkeys((*keys, view.plan.answers), value), **{key: m[at] for key, m in means.items()},
                        **view.plan.points[label], **measured}
    limits = [c for c in view.plan.constraints if all(c.objective in v for v in by_point.values())]
    over = np.array([[c.violation(v[c.objective]) for c in limits] for v in by_point.values()])
    over = over.reshape(len(by_point), len(limits))
    nearest = over[int(np.argmin(np.maximum(over, 0).sum(axis=1)))]
    values = tuple(proposal_values(by_point, keys))  # type: ignore[arg-type]
    return Expected(values, {c.expr: float(v) for c, v in zip(limits, nearest, strict=True)})
