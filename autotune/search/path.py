"""What is left of each adapter's way to its results: the next rung, and the seconds to the end."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.search.view import View


@dataclass(frozen=True)
class Path:
    """``rung`` comes next. ``training_s`` to the last rung, judging included; ``scoring_s`` at the points that may
    matter."""

    rung: int
    training_s: float
    scoring_s: float

    @property
    def seconds(self) -> float:
        return max(self.training_s + self.scoring_s, 1e-9)


def paths(view: View) -> dict[int, Path]:
    """The adapters that have rungs before them, by number."""
    last = len(view.plan.rungs) - 1
    found = {}
    for adapter in view.alive:
        if len(adapter.rungs) > last:
            continue
        chances = view.chances(adapter.number)
        scoring = sum(view.score_s(label) for label, may in zip(view.space.labels, chances, strict=True) if may)
        found[adapter.number] = Path(len(adapter.rungs), view.train_s(adapter.number, last), scoring)
    return found
