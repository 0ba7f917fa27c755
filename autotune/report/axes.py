"""The axes of a plot of two measured quantities: their ends, their limits, and the front between them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autotune import pareto
from autotune.constraints import Constraint
from autotune.finished import FinishedRun, FinishedTrial, unit_of
from autotune.pareto import Direction
from autotune.report.groups import GROUPS, grouped
from autotune.report.wording import axis_title
from objectives.base import OBJECTIVES, name_of

#: How many lengths of an axis the box reaches beyond it where no limit ends it.
_FAR = 1000.0


@dataclass(frozen=True)
class Axis:
    """``limits`` are those on this very quantity; ``shown`` and ``shown_feasible`` the ends of the axis with all
    trials and without those that a reader may hide; ``allowed`` the part on which the limits hold."""

    key: str
    title: str
    direction: Direction
    asked: bool
    limits: tuple[str, ...]
    shown: tuple[float, float]
    shown_feasible: tuple[float, float]
    allowed: tuple[float, float]


def axes(run: FinishedRun, chosen: int | None) -> list[Axis]:
    """Every quantity that a plotted trial has: the objectives, then what limits are on, then the rest."""
    groups = grouped(run, chosen)
    plotted = [t for trials in groups.values() for t in trials]
    keys = dict.fromkeys([*run.asked, *(key for t in plotted for key in t.values)])
    seen = [key for key in keys if any(key in t.values for t in plotted)]
    kept = [t for group in GROUPS if not group.dimmed for t in groups[group.name]]
    return [_axis(run, key, plotted, kept) for key in seen]


def _axis(run: FinishedRun, key: str, plotted: Sequence[FinishedTrial], kept: Sequence[FinishedTrial]) -> Axis:
    direction = _direction(run, key)
    limits = [c for c in run.constraints if c.objective == key and (not c.relative or c.baseline is not None)]
    shown = _ends(key, plotted, limits)
    low, high = shown[0] - _FAR * (shown[1] - shown[0]), shown[1] + _FAR * (shown[1] - shown[0])
    return Axis(
        key, axis_title(key, unit_of(key, run.units), direction), direction,
        asked=key in dict(run.objectives), limits=tuple(c.expr for c in limits),
        shown=shown, shown_feasible=_ends(key, kept, limits) if any(key in t.values for t in kept) else shown,
        allowed=(max([low, *(c.bound for c in limits if c.op == ">=")]),
                 min([high, *(c.bound for c in limits if c.op == "<=")])),
    )


def _direction(run: FinishedRun, key: str) -> Direction:
    known = dict(run.objectives)
    if key in known:
        return known[key]
    objective = OBJECTIVES.get(name_of(key))
    if objective:
        return objective.direction
    return "minimize" if any(c.objective == key and c.op == "<=" for c in run.constraints) else "maximize"


def _ends(key: str, trials: Sequence[FinishedTrial], limits: Sequence[Constraint]) -> tuple[float, float]:
    """Room for every interval, and for a limit that is no further away than the values are apart."""
    found = [v for t in trials if key in t.values
             for v in (t.values[key].value, t.values[key].low, t.values[key].high) if v is not None]
    low, high = min(found), max(found)
    span = high - low or abs(high) * 0.2 or 1.0
    near = [c.bound for c in limits if low - span <= c.bound <= high + span]
    low, high = min([low, *near]), max([high, *near])
    return low - 0.06 * span, high + 0.06 * span


def staircase(trials: Sequence[FinishedTrial], x: Axis, y: Axis) -> dict[str, list[float]]:
    """The corners of the feasible front in two quantities, from left to right: what no feasible trial is better than
    in both. Empty where there is no feasible trial."""
    points = [(t.values[x.key].value, t.values[y.key].value) for t in trials
              if t.feasible and x.key in t.values and y.key in t.values]
    corners = sorted(pareto.corners(points, (x.direction, y.direction)))
    return {"x": [p[0] for p in corners], "y": [p[1] for p in corners]}


def box(x: Axis, y: Axis) -> dict[str, Any]:
    """The part of the plot in which the limits on its two quantities hold."""
    return {"type": "rect", "layer": "below", "fillcolor": "rgba(46,160,67,0.12)",
            "x0": x.allowed[0], "x1": x.allowed[1], "y0": y.allowed[0], "y1": y.allowed[1],
            "line": {"color": "#2ea043", "width": 1, "dash": "dot"}}
