"""What a set of trials amounts to: the front, the selected one, or the nearest miss; and the sentence for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune import pareto
from autotune.constraints import Constraint
from autotune.report.wording import figure, join, missed_by, show, with_unit
from autotune.stats import Measurement
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


def sentence(
    labels: Mapping[int, str], values: Mapping[int, Mapping[str, Measurement]], keys: Sequence[str],
    constraints: Sequence[Constraint], outcome: Outcome, units: Mapping[str, str], final: bool = True,
) -> str:
    """The search's answer; with ``final`` false a certificate still follows.

    ``labels`` are the deploy points and ``values`` what was measured, by trial; ``keys`` the objectives to name.
    """
    if outcome.selected is not None:
        number = outcome.selected
        told = ", ".join(f"{key} {show(values[number][key])}{with_unit(units.get(key, ''))}" for key in keys)
        limits = f" and meets {join([c.expr for c in constraints])}" if constraints else ""
        others = len(outcome.front) - 1
        among = f" ({outcome.policy} of {others + 1} on the front)" if others else ""
        word = "Chosen" if final else "First choice"
        return f"{word}: trial {number}, {labels[number]}{among}: {told}{limits}."
    if outcome.miss is not None:
        miss = outcome.miss
        value, unit = values[miss.trial][miss.objective].value, units.get(miss.objective, "")
        return (f"Nothing meets the limits. Nearest: trial {miss.trial}, {labels[miss.trial]}, "
                f"{missed_by(miss, unit)}; {miss.objective} was {figure(value)}{with_unit(unit)}.")
    return "No trial was completed, so there is nothing to choose."


def hopeless_sentence(label: str, miss: pareto.Miss, unit: str) -> str:
    """Why there is nothing to choose when no deploy point can meet the limits; ``label`` names the nearest."""
    return ("Nothing can meet the limits, whatever the adapter, so nothing was trained. Nearest: "
            f"{label}, which {missed_by(miss, unit)} on the base model.")
