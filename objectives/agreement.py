"""Whether two computations of the same logits agree, and how clear a choice is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from objectives.accuracy import Node, greedy

Logits = np.ndarray[Any, np.dtype[np.float32]]


class Recorder:
    """Picks like `objectives.accuracy.choose` for one row, and keeps the logits [vocabulary] and the token of
    each node on its way."""

    def __init__(self) -> None:
        self.logits: list[Logits] = []
        self.tokens: list[int] = []

    def __call__(self, row: int, node: Node, logits: Logits) -> int:
        del row
        self.logits.append(logits.copy())
        self.tokens.append(greedy(node, logits))
        return self.tokens[-1]


class Careful:
    """Picks where the choice is clear, and leaves a row where it is not.

    ``guided`` rows go the way that their recorder saw, and their logits are held against what it saw.
    """

    def __init__(self, close: float, guided: Mapping[int, Recorder]) -> None:
        #: Per row, how many choices it took.
        self.levels: dict[int, int] = {}
        self.difference = 0.0
        self._close, self._guided = close, guided
        self._agreed = dict.fromkeys(guided, 0)

    def __call__(self, row: int, node: Node, logits: Logits) -> int | None:
        level = self.levels[row] = self.levels.get(row, 0) + 1
        if row in self._guided:
            guide = self._guided[row]
            apart = difference(logits, guide.logits[level - 1])
            self.difference = max(self.difference, apart)
            self._agreed[row] += apart == 0 and self._agreed[row] == level - 1
            return guide.tokens[level - 1]
        return greedy(node, logits) if lead(node, logits) > self._close else None

    def agreed(self, row: int) -> int:
        """At how many nodes, from the first on, a guided row's logits were the recorder's to the bit."""
        return self._agreed[row]


def difference(a: Logits, b: Logits) -> float:
    """The largest absolute difference, 0 only where all are equal; infinite where one of two is no number or
    infinite."""
    if np.array_equal(a, b):
        return 0.0
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
