"""The front's hypervolume where a deploy point's costs are known before any training and accuracy alone is searched.

With fixed costs the hypervolume (Zitzler & Thiele 1999) needs no general algorithm: the cost plane falls into cells,
each dominated by a fixed set of points, and a cell's height is the best accuracy among these. So it is a weighted sum
of maxima, cheap enough to take its expectation over an adapter's uncertain accuracies (expected hypervolume
improvement; Emmerich, Giannakoglou & Naujoks 2006, IEEE Trans. Evol. Comput. 10:421) for every adapter before each
piece of work.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from autotune.constraints import Constraint
from autotune.pareto import Direction
from objectives.base import SHARES

Array = NDArray[Any]
_SLICES = 64
#: Means of the standard normal distribution's slices of equal weight: an expectation over one uncertain number, whose
#: tail counts in full.
NODES: Array = -_SLICES * np.diff(scipy_stats.norm.pdf(scipy_stats.norm.ppf(np.linspace(0, 1, _SLICES + 1))))
#: Where no limit on a cost was given, its worst point lies this share of its size before the reference.
_MARGIN = 0.1


@dataclass(frozen=True)
class Volume:
    """Hypervolume over deploy points, as a share of the box between the best costs and the reference.

    ``weights`` [cells] and ``covers`` [cells, points]: how much of the costs' box a cell is, and by which points it
    is dominated. ``cheaper`` [points, points]: whether the second costs no more than the first in anything, itself
    included. ``allowed`` [points]: whether a point meets the limits on what is known of it. ``sign`` is -1 where less
    is better. ``floor`` is the signed bound on what is searched, ``ceiling`` the signed best that there can be.
    ``graded``: more of it is better, and not only enough of it.
    """

    labels: tuple[str, ...]
    weights: Array
    covers: Array
    cheaper: Array
    allowed: Array
    sign: int
    floor: float
    ceiling: float
    graded: bool

    def of(self, best: Array) -> Array:
        """Hypervolume [...] of signed values [..., points]; -inf where a point has none."""
        masked = np.where(self.covers, best[..., None, :], -np.inf)
        height = masked.max(axis=-1, initial=-np.inf) - self.floor
        worth = np.maximum(height, 0.0) if self.graded else (height >= 0).astype(float)
        return np.asarray(worth @ self.weights)

    def gain(self, best: Array, mean: Array, sd: Array) -> float:
        """Expected hypervolume that values ``mean`` ± ``sd`` [points] add to ``best``; NaN means not measured there.

        One adapter's errors at several points go together, so one uncertain number moves them all.
        """
        drawn = np.where(np.isnan(mean), -np.inf, np.minimum(mean + NODES[:, None] * sd, self.ceiling))
        return float(np.mean(self.of(np.maximum(best, drawn))) - self.of(best))

    def beaten(self, best: Array) -> Array:
        """For each point the best signed value [points] among those that cost no more."""
        return np.asarray(np.where(self.cheaper, best[None, :], -np.inf).max(axis=1, initial=-np.inf))


def volume(
    points: Mapping[str, Mapping[str, float]], objectives: Sequence[tuple[str, Direction]],
    constraints: Sequence[Constraint], answers: str, seen: Sequence[float] = (),
) -> Volume:
    """The cells of a study's costs. Costs are the objectives that every point has a known value of.

    The reference is the corner of the limits; without a limit on a cost it lies beyond the worst point, without one
    on a metric of any scale beyond the worst value ``seen``. Where another objective is known of no point before it
    was measured, no point is said to cost as little as another.
    """
    labels = tuple(points)
    known = set.intersection(*(set(v) for v in points.values())) - {answers} if points else set()
    directions = dict(objectives)
    sign = -1 if directions.get(answers) == "minimize" or _only_upper(constraints, answers) else 1
    floors = [sign * c.bound for c in constraints if c.objective == answers and (c.op == ">=") == (sign > 0)]
    limits = [c for c in constraints if c.objective in known]
    allowed = np.array([all(c.holds(points[p][c.objective]) for c in limits) for p in labels], dtype=bool)
    costs = [(key, d) for key, d in objectives if key in known]
    table = np.array([[points[p][key] * (-1 if d == "maximize" else 1) for key, d in costs] for p in labels])
    table = table.reshape(len(labels), len(costs))
    reference = [_reference(table[:, i], key, d, constraints) for i, (key, d) in enumerate(costs)]
    weights, covers = _cells(table, reference, allowed)
    floor = max(floors) if floors else _floor(answers, sign, seen)
    unknown = any(key != answers and key not in known for key, _ in objectives)
    cheaper = np.asarray((table[None, :, :] <= table[:, None, :]).all(axis=2)) & (not unknown)
    ceiling = (1.0 if sign > 0 else 0.0) if answers in SHARES else np.inf
    return Volume(labels, weights, covers, cheaper, allowed, sign, floor, ceiling, answers in directions)


def _floor(answers: str, sign: int, seen: Sequence[float]) -> float:
    """The signed worst value where no limit says it: that of a share, or what lies beyond those seen."""
    if answers in SHARES or not seen:
        return 0.0 if sign > 0 else -1.0
    signed = sign * np.array(seen)
    return float(signed.min() - _MARGIN * max(abs(signed.min()), np.ptp(signed)))


def _only_upper(constraints: Sequence[Constraint], key: str) -> bool:
    ops = {c.op for c in constraints if c.objective == key}
    return ops == {"<="}


def _reference(column: Array, key: str, direction: Direction, constraints: Sequence[Constraint]) -> float:
    sign, op = (-1, ">=") if direction == "maximize" else (1, "<=")
    limits = [sign * c.bound for c in constraints if c.objective == key and c.op == op]
    if limits:
        return float(min(limits))
    return float(column.max() + _MARGIN * max(abs(column.max()), np.ptp(column)))


def _cells(table: Array, reference: Sequence[float], allowed: Array) -> tuple[Array, Array]:
    """(weights, covers): cells that the same points dominate are one."""
    edges = []
    for i, end in enumerate(reference):
        starts = sorted({float(v) for v in table[allowed, i] if v < end})
        # A limit that the best point just meets leaves no box: then this cost tells points apart no further.
        edges.append([(a, (b - a) / (end - starts[0])) for a, b in itertools.pairwise([*starts, end])] if starts
                     else [(end, 1.0)])
    found: dict[bytes, tuple[Array, float]] = {}
    for cell in itertools.product(*edges):
        corner = np.array([start for start, _ in cell])
        mask = allowed & (table <= corner).all(axis=1)
        if mask.any():
            share = float(np.prod([size for _, size in cell]))
            found[mask.tobytes()] = (mask, found.get(mask.tobytes(), (mask, 0.0))[1] + share)
    if not found:
        return np.zeros(0), np.zeros((0, len(allowed)), bool)
    return np.array([w for _, w in found.values()]), np.array([m for m, _ in found.values()])
