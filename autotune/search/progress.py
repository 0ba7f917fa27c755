"""A study's records as the search's rules read them: its State, what work has cost so far, how long it will go on. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autotune.pipeline.rungs import training_steps
from autotune.search.path import paths
from autotune.search.proposals import Proposed
from autotune.search.rungs import AdapterState, Costs, Outcome, Plan, Rung, State
from autotune.search.view import View
from autotune.trials import TrialRecord
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

#: Of a trial's stages those that it is made of itself; the others are measured once a deploy point.
_OWN_STAGES = ("assemble", "answers", "probe")


def adapter_states(
    proposed: Sequence[Proposed], records: Sequence[TrialRecord], points: Sequence[DeployParams], examples: int
) -> tuple[AdapterState, ...]:
    """What is known of every adapter, in the order of the proposals. ``points`` are those that are searched,
    ``examples`` the training rows."""
    labels = {point: point.label for point in points}
    scored: dict[AdapterParams, dict[str, Outcome]] = {}
    for record in records:
        if record.deploy in labels and not record.interrupted:
            values = {} if record.state == "FAILED" else {key: m.value for key, m in record.values.items()}
            state = record.state if record.state != "RUNNING" else "FAILED"
            scored.setdefault(record.adapter, {})[labels[record.deploy]] = Outcome(state, values)
    return tuple(
        AdapterState(p.number, p.params, training_steps(p.params, examples), p.rungs,
                     {**{label: Outcome("SKIPPED") for label in p.skipped}, **scored.get(p.params, {})}, p.reason)
        for p in proposed
    )


def learned_costs(
    adapters: Sequence[AdapterState], records: Iterable[TrialRecord], width: int, reserve: float
) -> Costs:
    """Expected seconds of each kind of work, from what it took in this run; nothing where nothing was made yet.

    What the store had already took no time, and says nothing of what will be made.
    """
    trained = [(r, r.step - before) for a in adapters for r, before in _with_start(a.rungs) if r.seconds > 0]
    steps = sum(new for _, new in trained)
    judged = [r.judge_s for a in adapters for r in a.rungs if r.judge_s > 0]
    by_label: dict[str, list[float]] = {}
    for record in records:
        own = [record.stages[name] for name in _OWN_STAGES if name in record.stages and name not in _shared(record)]
        seconds = sum(stage["seconds"] for stage in own if not stage["cached"])
        if seconds > 0:
            by_label.setdefault(record.deploy.label, []).append(seconds)
    return Costs(
        step=width * sum(r.seconds for r, _ in trained) / steps if steps else None,
        steps=statistics.median(a.steps for a in adapters) if adapters else None,
        judge=statistics.fmean(judged) if judged else None,
        score={label: statistics.fmean(seconds) for label, seconds in by_label.items()},
        reserve=reserve,
    )


def seconds_left(state: State, plan: Plan) -> float | None:
    """How long the search will go on at its pace so far; None where the budget does not say where it ends, or no work
    of a kind that is to come was done yet."""
    if plan.costs.step is None or not plan.costs.score or plan.budget.adapters is None:
        return None
    view = View.of(state, plan)
    begun = sum(path.seconds for path in paths(view).values())
    scores = sum(view.score_s(label) for n in view.at_last_rung for label in view.open_points(n))
    fresh = 0 if state.exhausted else max(0, plan.budget.adapters - state.spent.adapters)
    left = begun + scores + fresh * view.new_s()
    return left if plan.budget.time_s is None else min(left, max(0.0, view.left_s))


def certificate_seconds(
    requests: int, most: float, sustain: float, latency_ms: float, row_s: float, rows: int, fixed_s: float = 25.0
) -> float:
    """What certifying one finalist takes: its requests by turns with the reference's, at most ``most`` seconds; load
    before them; ``rows`` test rows at ``row_s`` each; ``fixed_s`` for starting, loading and comparing logits."""
    return min(2.0 * requests * latency_ms / 1e3, most) + sustain + rows * row_s + fixed_s


def row_seconds(records: Iterable[TrialRecord], rows: int) -> float | None:
    """Seconds that an artifact of this run takes to answer one of the validation ``rows``; None before any did."""
    asked = [r.stages["answers"]["seconds"] / rows for r in records
             if r.state == "COMPLETE" and "answers" in r.stages and not r.stages["answers"]["cached"]]
    return statistics.fmean(asked) if asked else None


def curve_json(
    rungs: Sequence[Rung], label: str, curve: Sequence[tuple[int, float]], valid_loss: float
) -> list[dict[str, Any]]:
    """A trial's ``rungs`` in results.json: its adapter as judged at this deploy point, and its end; else, where it was
    not judged, the points of its training's curve. Losses that are not finite are null."""
    judged = [r for r in rungs if r.right or (r.valid_loss is not None and r.fraction < 1)]
    points = [(r.step, r.valid_loss, r.right[label] / r.rows if label in r.right else None) for r in judged]
    if points and rungs[-1].fraction == 1:
        points.append((rungs[-1].step, valid_loss, None))
    points = points or [(step, loss, None) for step, loss in curve]
    return [{"step": step, "valid_loss": loss if loss is not None and math.isfinite(loss) else None, "accuracy": share}
            for step, loss, share in points]


def _with_start(rungs: Sequence[Rung]) -> list[tuple[Rung, int]]:
    return list(zip(rungs, [0, *(r.step for r in rungs)], strict=False))


def _shared(record: TrialRecord) -> Mapping[str, str]:
    """Stages of the deploy point that a trial lists without having made them."""
    return {"probe": "base"} if record.on_base else {}
