"""What is left of each adapter's way to its results: the next rung, and the seconds to the end."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.search.view import GOES_ON, View


@dataclass(frozen=True)
class Path:
    """``rung`` comes next and takes ``next_s``; ``rest_s``: what is left then, judging included, and scoring at the
    points that may matter."""

    rung: int
    next_s: float
    rest_s: float
    last: bool

    @property
    def seconds(self) -> float:
        """Expected: an adapter that looks worse at the next rung goes no further."""
        return self.next_s + (1.0 if self.last else GOES_ON) * self.rest_s


def paths(view: View) -> dict[int, Path]:
    """The adapters that have rungs before them, by number."""
    last = len(view.plan.rungs) - 1
    found = {}
    for adapter in view.alive:
        rung = len(adapter.rungs)
        if rung > last:
            continue
        chances = view.chances(adapter.number)
        scoring = sum(view.score_s(label) for label, may in zip(view.space.labels, chances, strict=True) if may)
        next_s = view.train_s(adapter.number, rung)
        found[adapter.number] = Path(rung, next_s, view.train_s(adapter.number, last) - next_s + scoring, rung == last)
    return found
