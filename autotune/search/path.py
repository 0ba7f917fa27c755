"""What is left of each adapter's way to its results: the next rung, and the seconds to the end."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.search.rungs import Train
from autotune.search.view import GOES_ON, View


@dataclass(frozen=True)
class Path:
    """``rung`` comes next and takes ``next_s``, judging included; ``rest_s`` is what is left then, scoring included at
    the points that may matter. ``seconds`` are those expected of both."""

    rung: int
    next_s: float
    rest_s: float
    seconds: float


def paths(view: View) -> dict[int, Path]:
    """The adapters that have rungs before them, by number."""
    last = len(view.plan.rungs) - 1
    return {a.number: _path(view, a.number, len(a.rungs), last) for a in view.alive if len(a.rungs) <= last}


def _path(view: View, number: int, rung: int, last: int) -> Path:
    """By the next rung, after which one that looks worse goes no further; or to the end at once, where that, without
    being judged between, takes no longer or alone fits into the time that is left, or where there is no other yet that
    it could look worse than. What was never judged is judged first."""
    chances = view.chances(number)
    scoring = sum(view.score_s(label) for label, may in zip(view.space.labels, chances, strict=True) if may)
    to_next, to_last = view.train_s(number, rung), view.train_s(number, last)
    by_next = Path(rung, to_next, to_last - to_next + scoring, to_next + GOES_ON * (to_last - to_next + scoring))
    if rung == last:
        return Path(last, to_last, scoring, to_last + scoring)
    at_once = view.train_s(number, last, judged=False)
    quicker = at_once + scoring <= by_next.seconds or not view.fits(Train((number,), rung))
    if rung and (quicker or not any(view.trained(a.number) for a in view.state.adapters if a.number != number)):
        return Path(last, at_once, scoring, at_once + scoring)
    return by_next
