"""A study's records as the search's rules read them: its State, and how long it will go on. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from autotune.search.path import paths
from autotune.search.proposals import Proposed
from autotune.search.rungs import AdapterState, Outcome, Plan, Rung, State
from autotune.search.view import View
from autotune.trials import TrialRecord
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams


def adapter_states(
    proposed: Sequence[Proposed], records: Sequence[TrialRecord], points: Sequence[DeployParams], examples: int,
    timed: bool = True,
) -> tuple[AdapterState, ...]:
    """What is known of every adapter, in the order of the proposals, of trials those that have ended. ``points`` are
    those that are searched, ``examples`` the training rows. Where it is not ``timed`` the seconds that rungs took are
    left out: what is tried next then does not depend on them."""
    labels = {point: point.label for point in points}
    scored: dict[AdapterParams, dict[str, Outcome]] = {}
    for record in records:
        if record.deploy in labels and not record.interrupted and record.state != "RUNNING":
            values = {} if record.state == "FAILED" else {key: m.value for key, m in record.values.items()}
            scored.setdefault(record.adapter, {})[labels[record.deploy]] = Outcome(record.state, values)

    def rungs(found: Proposed) -> tuple[Rung, ...]:
        return found.rungs if timed else tuple(replace(r, seconds=0.0, judge_s=0.0) for r in found.rungs)

    return tuple(
        AdapterState(p.number, p.params, p.params.training_steps(examples), rungs(p),
                     {**{label: Outcome("SKIPPED") for label in p.skipped}, **scored.get(p.params, {})}, p.reason)
        for p in proposed
    )


def seconds_left(state: State, plan: Plan) -> float | None:
    """How long the search will go on at its pace so far; None where the budget does not say where it ends, or no work
    of a kind that is to come was done yet."""
    if plan.costs.step is None or not plan.costs.score or plan.budget.adapters is None:
        return None
    view = View.of(state, plan)
    last = len(plan.rungs) - 1
    # What trains together shares its time.
    shared = {n: view.train_s(n, last, judged=False) * (1 - 1 / plan.width) for n in paths(view)}
    begun = sum(max(0.0, path.seconds - shared[n]) for n, path in paths(view).items())
    scores = sum(view.score_s(label) for n in view.at_last_rung for label in view.open_points(n))
    fresh = 0 if state.exhausted else max(0, plan.budget.adapters - state.spent.adapters)
    left = begun + scores + fresh * view.new_s()
    return left if plan.budget.time_s is None else min(left, max(0.0, view.left_s))


def curve_json(
    rungs: Sequence[Rung], label: str, curve: Sequence[tuple[int, float]], valid_loss: float
) -> list[dict[str, Any]]:
    """A trial's ``rungs`` in results.json: its adapter's judgements, with the share of right answers where this deploy
    point was judged, and its end; where nothing was judged, the points of its training's curve. Losses that are not
    finite are null."""
    judged = [r for r in rungs if r.right or (r.valid_loss is not None and r.fraction < 1)]
    points = [(r.step, r.valid_loss, r.right[label] / r.rows if label in r.right else None) for r in judged]
    if points and rungs[-1].fraction == 1:
        points.append((rungs[-1].step, valid_loss, None))
    points = points or [(step, loss, None) for step, loss in curve]
    return [{"step": step, "valid_loss": loss if loss is not None and math.isfinite(loss) else None, "accuracy": share}
            for step, loss, share in points]
