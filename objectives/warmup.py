"""Warm-up: requests until their times neither fall nor rise any more."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

AT_LEAST = 3
_WINDOW = 5
#: A change over the window of this share of the median is flat, whatever the noise.
_FLAT_SHARE = 0.02
_MAX_REQUESTS = 40
_MAX_SECONDS = 30.0


@dataclass(frozen=True)
class WarmUp:
    """``requests`` that were made until ``flat``, or until there were enough of them; the last took ``seconds`` each,
    with all that lies around what is timed."""

    requests: int
    flat: bool
    seconds: float


def slope(values: Sequence[float]) -> float:
    """The median of the slopes between all pairs, a step (Theil 1950; Sen 1968, JASA 63:1379)."""
    pairs = itertools.combinations(enumerate(values), 2)
    return statistics.median((b - a) / (j - i) for (i, a), (j, b) in pairs)


def flat(times: Sequence[float]) -> bool:
    """Whether the last few times, three at least, lie level: what they rise or fall by over their span is within
    their scatter about the line, or small."""
    last = times[-_WINDOW:]
    if len(last) < AT_LEAST:
        return False
    a_step = slope(last)
    level = [t - a_step * i for i, t in enumerate(last)]
    middle = statistics.median(level)
    scatter = statistics.median(abs(t - middle) for t in level)
    return abs(a_step) * (len(last) - 1) <= max(_FLAT_SHARE * statistics.median(last), 2 * scatter)


def warm_up(request: Callable[[], float]) -> WarmUp:
    """Make requests until they are flat: 3 at least, and no more than 40 or 30 s of them. ``request`` makes one and
    returns its milliseconds; each must ask the same."""
    times, clock = list[float](), [time.perf_counter()]
    while not (level := flat(times)):
        enough = len(times) >= _MAX_REQUESTS or clock[-1] - clock[0] >= _MAX_SECONDS
        if enough and len(times) >= AT_LEAST:
            break
        times.append(request())
        clock.append(time.perf_counter())
    last = [after - before for before, after in itertools.pairwise(clock)][-AT_LEAST:]
    return WarmUp(len(times), level, statistics.median(last))
