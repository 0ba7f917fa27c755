"""Fronts, how much they cover, and selection policies: pure functions over values that are already measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from autotune.constraints import Constraint
from objectives.base import SHARES

Direction = Literal["maximize", "minimize"]
Policy = Literal["most-accurate", "fastest", "smallest", "knee"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


@dataclass(frozen=True)
class Candidate:
    """A complete trial: its number and every measured value by key."""

    number: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Miss:
    """The trial that is nearest to the limits, and the limit it misses by the largest share."""

    trial: int
    expr: str
    objective: str
    shortfall: float
    bound: float


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """``a`` is nowhere worse and somewhere better; both to be minimized."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def losses(values: Mapping[str, float], objectives: Sequence[tuple[str, Direction]]) -> tuple[float, ...]:
    """The objectives' values, signed so that less is better."""
    return tuple(values[key] * (-1 if d == "maximize" else 1) for key, d in objectives)


def feasible(candidate: Candidate, constraints: Sequence[Constraint]) -> bool:
    """All point estimates within their bounds.

    Raises:
        KeyError: a constrained objective is missing; that never counts as met.
    """
    return all(c.holds(candidate.values[c.objective]) for c in constraints)


def front(
    candidates: Sequence[Candidate], objectives: Sequence[tuple[str, Direction]], constraints: Sequence[Constraint]
) -> list[int]:
    """Numbers of the feasible candidates that no other feasible one dominates, ascending."""
    eligible = [(c.number, losses(c.values, objectives)) for c in candidates if feasible(c, constraints)]
    return sorted(n for n, mine in eligible if not any(dominates(other, mine) for _, other in eligible))


def select(
    candidates: Sequence[Candidate],
    objectives: Sequence[tuple[str, Direction]],
    policy: Policy,
) -> int | None:
    """The number of the candidate that the policy picks among a front; None when it is empty."""
    return next(iter(rank(candidates, objectives, policy)), None)


def rank(
    candidates: Sequence[Candidate], objectives: Sequence[tuple[str, Direction]], policy: Policy
) -> list[int]:
    """Numbers of a front's candidates in the policy's order, its pick first.

    ``most-accurate``, ``fastest`` and ``smallest`` go by the accuracy-like, time-like or size value and break ties by
    the others; ``knee`` by the distance from the ideal corner after every objective is scaled to its range on the
    front.
    """
    if policy == "knee":
        ordered = sorted(candidates, key=lambda c: (_knee_distance(c, candidates, objectives), c.number))
    else:
        ranked = _ranked(objectives, policy)
        ordered = sorted(candidates, key=lambda c: (losses(c.values, ranked), c.number))
    return [c.number for c in ordered]


def goes_by(policy: Policy, key: str) -> bool:
    """Whether an objective is one that the policy looks at first; ``knee`` looks at all alike."""
    if policy == "fastest":
        return "_ms" in key or key.startswith("tokens_per_s")
    if policy == "smallest":
        return key.startswith("size_mb")
    return policy == "knee" or ":" in key or key in SHARES


def _ranked(objectives: Sequence[tuple[str, Direction]], policy: Policy) -> list[tuple[str, Direction]]:
    return sorted(objectives, key=lambda o: not goes_by(policy, o[0]))


def _knee_distance(
    candidate: Candidate, among: Sequence[Candidate], objectives: Sequence[tuple[str, Direction]]
) -> float:
    total = 0.0
    columns = zip(*(losses(c.values, objectives) for c in among), strict=True)
    for mine, column in zip(losses(candidate.values, objectives), columns, strict=True):
        low, high = min(column), max(column)
        if high > low:
            total += ((mine - low) / (high - low)) ** 2
    return total


def nearest_miss(candidates: Sequence[Candidate], constraints: Sequence[Constraint]) -> Miss | None:
    """The infeasible candidate with the least total violation; None when there is no candidate."""
    if not candidates or not constraints:
        return None
    nearest = min(candidates, key=lambda c: (
        sum(max(0.0, k.violation(c.values[k.objective])) for k in constraints), c.number))
    worst = max(constraints, key=lambda k: k.violation(nearest.values[k.objective]))
    shortfall = abs(nearest.values[worst.objective] - worst.bound)
    return Miss(nearest.number, worst.expr, worst.objective, shortfall, worst.bound)


def corners(
    points: Iterable[tuple[float, float]], directions: tuple[Direction, Direction]
) -> list[tuple[float, float]]:
    """Of points in two objectives those that no other one is better than in both, from the best in the first on."""
    signs = [-1 if d == "maximize" else 1 for d in directions]
    found: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (signs[0] * p[0], signs[1] * p[1])):
        if not found or signs[1] * point[1] < signs[1] * found[-1][1]:
            found.append(point)
    return found


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The volume of what the points dominate within the reference, all objectives being minimized.

    Exact, for any number of objectives: each point's box less what the points after it cover of it (WFG; While,
    Bradstreet & Barone 2012, IEEE Trans. Evol. Comput. 16:86). A point that is not better than the reference in every
    objective adds nothing.
    """
    inside = {tuple(p) for p in points if all(x < r for x, r in zip(p, reference, strict=True))}
    return _volume(_undominated(sorted(inside)), reference)


def _volume(points: Sequence[tuple[float, ...]], reference: Sequence[float]) -> float:
    total = 0.0
    for i, point in enumerate(points):
        cut = {tuple(map(max, point, other)) for other in points[i + 1:]}
        box = math.prod(r - x for x, r in zip(point, reference, strict=True))
        total += box - _volume(_undominated(sorted(cut)), reference)
    return total


def _undominated(points: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    return [p for p in points if not any(dominates(other, p) for other in points)]


def coverage(points: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float | None:
    """The share of ``others`` that some of ``points`` equals or dominates: the C metric of Zitzler & Thiele 1999 (IEEE
    Trans. Evol. Comput. 3:257). None where there are no others. C(A, B) and C(B, A) do not add up to 1."""
    if not others:
        return None
    covered = sum(any(tuple(p) == tuple(o) or dominates(p, o) for p in points) for o in others)
    return covered / len(others)
