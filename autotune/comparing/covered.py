"""How much of the ground between the best and a reference point each of several fronts covers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from autotune import pareto
from autotune.constraints import Constraint
from autotune.finished import FinishedTrial
from autotune.pareto import Direction

Objective = tuple[str, Direction]
#: How far beyond the worst a reference stands, as a share of the range: on the worst itself the ends of a front would
#: count for nothing (Ishibuchi, Imada, Setoguchi & Nojima 2018, Evol. Comput. 26:411).
BEYOND = 0.1


@dataclass(frozen=True)
class Reference:
    """One objective's part of the reference point: a limit that all runs share, or beyond the worst on all fronts."""

    key: str
    value: float
    of: Literal["limit", "worst"]


@dataclass(frozen=True)
class Covered:
    """``volumes`` are the fronts' hypervolumes, each a share of the box from the best value of every objective on all
    fronts to the reference; ``together`` is that of all fronts.

    ``coverage[i][j]`` is the share of front j that front i equals or dominates (None: j is empty), ``dominated`` for
    each front the trials that another front dominates. ``reference`` is empty where every front is.
    """

    reference: tuple[Reference, ...]
    volumes: tuple[float, ...]
    together: float
    coverage: tuple[tuple[float | None, ...], ...]
    dominated: tuple[tuple[int, ...], ...]


def covered(
    fronts: Sequence[Sequence[FinishedTrial]], objectives: Sequence[Objective],
    limits: Sequence[Sequence[Constraint]],
) -> Covered:
    """``limits`` are each run's constraints, with their numbers."""
    points = [[pareto.losses(t.candidate().values, objectives) for t in front] for front in fronts]
    coverage = tuple(tuple(pareto.coverage(mine, others) for others in points) for mine in points)
    dominated = tuple(
        tuple(t.number for t, point in zip(front, mine, strict=True)
              if any(pareto.dominates(p, point) for other in points if other is not mine for p in other))
        for front, mine in zip(fronts, points, strict=True))
    union = [p for front in points for p in front]
    if not union:
        return Covered((), tuple(0.0 for _ in fronts), 0.0, coverage, dominated)
    best = [min(column) for column in zip(*union, strict=True)]
    reference = tuple(_reference(o, column, limits) for o, column in zip(objectives, zip(*union, strict=True),
                                                                          strict=True))
    corner = pareto.losses({r.key: r.value for r in reference}, objectives)

    def volume(front: Sequence[Sequence[float]]) -> float:
        """In units of the box, so that it does not depend on those of the objectives."""
        scaled = [[(x - low) / (high - low) if high > low else 0.0 for x, low, high in
                   zip(point, best, corner, strict=True)] for point in front]
        return pareto.hypervolume(scaled, [1.0] * len(objectives))

    return Covered(reference, tuple(volume(front) for front in points), volume(union), coverage, dominated)


def _reference(objective: Objective, column: Sequence[float], limits: Sequence[Sequence[Constraint]]) -> Reference:
    key, direction = objective
    op = ">=" if direction == "maximize" else "<="
    tightest = [min((pareto.losses({key: c.bound}, [objective])[0] for c in own if (c.objective, c.op) == (key, op)),
                    default=None) for own in limits]
    shared = tightest[0] if len(set(tightest)) == 1 else None
    loss = shared if shared is not None else max(column) + BEYOND * (max(column) - min(column))
    return Reference(key, -loss if direction == "maximize" else loss, "worst" if shared is None else "limit")
