"""What the sampler is told of adapters by the search with fidelities: measured where scored, forecast elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autotune.search.proposals import Expected
from autotune.search.rungs import AdapterState, Plan, State
from autotune.search.schedule import proposal_values
from autotune.search.view import View


def expected(state: State, plan: Plan, keys: Sequence[str] = ("accuracy",)) -> dict[int, Expected]:
    """For each adapter that has a rung or a score behind it, by number: the values that `schedule.proposal_values`
    would give for ``keys`` were it scored everywhere, and the violation of each limit at the point where all together
    are least.

    Where an adapter decides more keys than ``plan.answers``, its forecast stands for each: one good in one is good in
    all.
    """
    view = View.of(state, plan)
    return {a.number: _of(view, a, keys) for a in state.adapters if a.rungs or a.number in view.finished}


def _of(view: View, adapter: AdapterState, keys: Sequence[str]) -> Expected:
    found = view.forecasts.of(adapter.number)
    by_point: dict[int, dict[str, float]] = {}
    for at, label in enumerate(view.space.labels):
        value = view.space.sign * float(found.mean[at])
        outcome = adapter.scored.get(label)
        measured: Mapping[str, float] = outcome.values if outcome else {}
        by_point[at] = {**dict.fromkeys((*keys, view.plan.answers), value), **view.plan.points[label], **measured}
    limits = [c for c in view.plan.constraints if all(c.objective in v for v in by_point.values())]
    over = np.array([[c.violation(v[c.objective]) for c in limits] for v in by_point.values()])
    over = over.reshape(len(by_point), len(limits))
    nearest = over[int(np.argmin(np.maximum(over, 0).sum(axis=1)))]
    values = tuple(proposal_values(by_point, keys))  # type: ignore[arg-type]
    return Expected(values, {c.expr: float(v) for c, v in zip(limits, nearest, strict=True)})
