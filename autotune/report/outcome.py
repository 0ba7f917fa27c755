"""What a set of trials amounts to: the front, the selected one, or the nearest miss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotune import pareto
from autotune.constraints import Constraint
from autotune.trials import TrialRecord
from objectives.base import Objective


@dataclass(frozen=True)
class Outcome:
    """Trial numbers. ``selected`` is None exactly when no trial meets the limits; then ``miss`` says how near."""

    front: tuple[int, ...]
    selected: int | None
    policy: pareto.Policy
    miss: pareto.Miss | None


def judge(
    records: Sequence[TrialRecord], objectives: Sequence[tuple[str, Objective]],
    constraints: Sequence[Constraint], policy: pareto.Policy,
) -> Outcome:
    """Point estimates against the bounds, as the search sees them."""
    complete = [r.candidate() for r in records if r.state == "COMPLETE"]
    signed = [(key, objective.direction) for key, objective in objectives]
    numbers = pareto.front(complete, signed, constraints)
    selected = pareto.select([c for c in complete if c.number in numbers], signed, policy)
    miss = None if numbers else pareto.nearest_miss(complete, constraints)
    return Outcome(tuple(numbers), selected, policy, miss)
