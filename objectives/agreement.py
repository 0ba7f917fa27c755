"""How far two computations of the same logits lie apart, and how clear a choice is."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from objectives.accuracy import Node, greedy

Logits = np.ndarray[Any, np.dtype[np.float32]]


class Recorder:
    """Picks like `objectives.accuracy.choose`, and keeps what it saw: per row, the logits [vocabulary] and the
    token taken at each node."""

    def __init__(self) -> None:
        self.logits: dict[int, list[Logits]] = defaultdict(list)
        self.tokens: dict[int, list[int]] = defaultdict(list)
        self.smallest_lead: dict[int, float] = {}

    def __call__(self, row: int, node: Node, logits: Logits) -> int:
        token = greedy(node, logits)
        self.logits[row].append(logits.copy())
        self.tokens[row].append(token)
        self.smallest_lead[row] = min(self.smallest_lead.get(row, np.inf), lead(node, logits))
        return token


class Follower:
    """Takes the tokens that ``guide`` took, and keeps the logits it met on the way."""

    def __init__(self, guide: Recorder) -> None:
        self.logits: dict[int, list[Logits]] = defaultdict(list)
        self._guide = guide

    def __call__(self, row: int, node: Node, logits: Logits) -> int:
        del node
        self.logits[row].append(logits.copy())
        return self._guide.tokens[row][len(self.logits[row]) - 1]

    def furthest(self) -> float:
        """The largest difference of any logit from the guide's."""
        return max(
            difference(mine, its)
            for row, logits in self.logits.items()
            for mine, its in zip(logits, self._guide.logits[row], strict=True)
        )


def difference(a: Logits, b: Logits) -> float:
    """The largest absolute difference; infinite where only one of two is a number or infinite."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(a - b)
    apart[a == b] = 0  # infinities of one sign
    return float("inf") if np.isnan(apart).any() else float(apart.max())


def lead(node: Node, logits: Logits) -> float:
    """The best allowed logit less the second best; 0 unless all that are allowed are finite."""
    values = np.sort(logits[list(node.children)])
    if not np.isfinite(values).all():
        return 0.0
    return float(values[-1] - values[-2]) if len(values) > 1 else float("inf")
