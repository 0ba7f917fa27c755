"""Exact binomial intervals and what rests on them, without SciPy: the device has none.

tests/test_exact.py holds every function against SciPy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A value and its interval, made of ``n`` rows, requests or readings; an end is None where they are too few."""

    value: float
    low: float | None
    high: float | None
    n: int


def at_most(successes: int, n: int, rate: float) -> float:
    """P(X <= successes) for X ~ Binomial(n, rate)."""
    if successes < 0:
        return 0.0
    if successes >= n or rate <= 0:
        return 1.0
    return 0.0 if rate >= 1 else min(1.0, math.fsum(_chances(range(successes + 1), n, rate)))


def _chances(counts: Iterable[int], n: int, rate: float) -> Iterator[float]:
    """P(X = k) for each k; 0 < rate < 1."""
    whole, odds, other = math.lgamma(n + 1), math.log(rate), math.log1p(-rate)
    for k in counts:
        yield math.exp(whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * odds + (n - k) * other)


def lower_bound(successes: int, n: int, confidence: float) -> float:
    """The one-sided exact bound below the true rate: the rate at which as many successes or more have the
    probability 1 - ``confidence`` (Clopper & Pearson 1934, Biometrika 26:404). It is 0 for none."""
    # Counted by failures, so that the sum is of the tail that is small.
    return 0.0 if successes == 0 else 1 - _rate(lambda rate: at_most(n - successes, n, rate), 1 - confidence)


def upper_bound(successes: int, n: int, confidence: float) -> float:
    """The one-sided exact bound above the true rate; 1 where all succeeded."""
    return 1.0 if successes == n else 1 - lower_bound(n - successes, n, confidence)


def _rate(tail: Callable[[float], float], wanted: float) -> float:
    """1 - the rate of failure at which so few failures are still as likely as ``wanted``, turned round: by bisection
    of ``tail``, which falls with the rate."""
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if tail(middle) > wanted else (low, middle)
    return middle


def percentile(samples: Sequence[float], q: float, confidence: float) -> Interval:
    """The ``q``-quantile (0 < q < 1) with its distribution-free two-sided interval.

    The same as `autotune.stats.percentile`: the ends are order statistics, as the number of samples below the true
    quantile is Binomial(n, q) (David & Nagaraja 2003, Order Statistics, 7.1).
    """
    ordered, n = sorted(samples), len(samples)
    chances = list(_chances(range(n + 1), n, q))
    below, above = (_within(side, (1 - confidence) / 2) for side in (chances, reversed(chances)))
    place = round(q * n, 9)
    left = max(0, math.ceil(place) - 1)
    right = min(n - 1, left + (place == int(place)))
    return Interval((ordered[left] + ordered[right]) / 2, ordered[below - 1] if below else None,
                    ordered[n - above] if above else None, n)


def _within(chances: Iterable[float], tail: float) -> int:
    """How many of them, from the first on, come to no more than ``tail`` together."""
    return sum(1 for _ in itertools.takewhile(lambda total: total <= tail, itertools.accumulate(chances)))


def quantile_of(statistic: str | None) -> float | None:
    """``p95`` → 0.95; None for what is no percentile."""
    is_one = statistic is not None and statistic.startswith("p") and statistic[1:].isdigit()
    return int(statistic[1:]) / 100 if statistic and is_one else None


def samples_needed(q: float, confidence: float) -> int:
    """The least number of samples for which ``percentile`` gives both ends."""
    tail, n = (1 - confidence) / 2, 1
    while max(q, 1 - q) ** n > tail:
        n += 1
    return n


def requests_needed(quantiles: Iterable[float | None], confidence: float, fewest: int = 50) -> int:
    """Requests to time so that each quantile has both ends: a quarter more than the least, with which the upper end
    would be the slowest request of all. None stands for what is no quantile."""
    return max([fewest, *(-(-5 * samples_needed(q, confidence) // 4) for q in quantiles if q is not None)])


def mean(samples: Sequence[float], confidence: float) -> Interval:
    """The mean with its percentile bootstrap interval (Efron 1979, Ann. Stat. 7:1), the same as
    `autotune.stats.mean`: the seed is fixed. A single sample has none."""
    array, n = np.asarray(samples, dtype=np.float64), len(samples)
    value = float(array.mean())
    if n < 2:
        return Interval(value, None, None, n)
    rng, tail = np.random.default_rng(0), (1 - confidence) / 2
    drawn = [float(array[rng.integers(0, n, n)].mean()) for _ in range(_RESAMPLES)]
    low, high = (float(end) for end in np.quantile(drawn, [tail, 1 - tail]))
    return Interval(value, min(low, value), max(high, value), n)
