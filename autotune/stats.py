"""Numbers with their intervals. No number leaves the engine without its n."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from objectives.exact import quantile_of as quantile_of

RESAMPLES = 1000
Counts = NDArray[Any]
Ends = NDArray[np.float64]


@dataclass(frozen=True)
class Measurement:
    """A value and its two-sided confidence interval; an end is None where n is too small to tell.

    ``n`` counts what the value was made of: rows, requests, or 1 for a single reading.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    unit: str


def halved(confidence: float) -> float:
    """The confidence that each of two intervals needs for both to hold with ``confidence`` (Bonferroni)."""
    return 1 - (1 - confidence) / 2


def proportion(successes: int, n: int, confidence: float = 0.95, unit: str = "") -> Measurement:
    """``successes / n`` with the Wilson score interval (Wilson 1927, JASA 22:209).

    It covers the true rate with the confidence on average over rates, at single rates a little more or less: at
    95 % and rates from 0.5 to 0.98 at least 92.7 % with 100 rows, 93.9 % with 374, computed from the binomial
    distribution. ``exact_proportion`` never falls below the confidence and is 6 % and 3 % wider there.

    Raises ValueError when ``n`` is not positive or ``successes`` is not within 0 … n.
    """
    return _share(wilson, successes, n, confidence, unit)


def exact_proportion(successes: int, n: int, confidence: float = 0.95, unit: str = "") -> Measurement:
    """``successes / n`` with the exact interval (Clopper & Pearson 1934, Biometrika 26:404).

    Each end is wrong with a probability of at most (1 - confidence) / 2 whatever the true rate, which is what a
    certificate needs. Raises ValueError as ``proportion`` does.
    """
    return _share(clopper_pearson, successes, n, confidence, unit)


def wilson(successes: Counts, n: Counts, confidence: float) -> tuple[Ends, Ends]:
    """Both ends of the Wilson score interval for arrays of one shape."""
    z = float(scipy_stats.norm.ppf(0.5 + _checked(confidence) / 2))
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At 0 and n the exact ends are 0 and 1; rounding would put them a hair beyond the value.
    return np.where(successes == 0, 0.0, centre - half), np.where(successes == n, 1.0, centre + half)


def clopper_pearson(successes: Counts, n: Counts, confidence: float) -> tuple[Ends, Ends]:
    """Both ends of the exact interval for arrays of one shape."""
    tail = (1 - _checked(confidence)) / 2
    # Beta has no parameter 0; there the ends are 0 and 1.
    low = scipy_stats.beta.ppf(tail, np.maximum(successes, 1), n - successes + 1)
    high = scipy_stats.beta.isf(tail, successes + 1, np.maximum(n - successes, 1))
    return np.where(successes == 0, 0.0, low), np.where(successes == n, 1.0, high)


def _share(
    ends: Callable[[Counts, Counts, float], tuple[Ends, Ends]], successes: int, n: int, confidence: float, unit: str
) -> Measurement:
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no proportion; accepted: 0 <= successes <= n, n >= 1")
    low, high = ends(np.array([successes]), np.array([n]), confidence)
    return Measurement(successes / n, float(low[0]), float(high[0]), n, unit)


def percentile(samples: Sequence[float], q: float, confidence: float = 0.95, unit: str = "") -> Measurement:
    """The ``q``-quantile (0 < q < 1) with its distribution-free interval.

    The value is the inverse of the empirical distribution, the mean of both neighbours where it jumps (type
    2 of Hyndman & Fan 1996, Am. Stat. 50:361): unlike interpolation it never leaves the interval below.
    The ends are order statistics: the number of samples below the true quantile is Binomial(n, q), so the
    interval holds for any continuous distribution (David & Nagaraja 2003, Order Statistics, 7.1). It counts on
    samples that are independent: where neighbours correlate by 0.7 (an AR(1) process), 95 % become about 70 %
    for p50 and 80 % for p95 (benchmarks/calibration.py), so one must not measure while something else comes and goes.
    An end is None where even the extreme sample does not reach the confidence. Raises ValueError for no samples.
    """
    _quantile(q)
    ordered = np.sort(_finite(samples))
    n = len(ordered)
    tail = (1 - _checked(confidence)) / 2
    ranks = np.arange(1, n + 1)
    # X(l) lies above the quantile when fewer than l samples are below it; X(u) lies below when u or more are.
    fits_below = ranks[scipy_stats.binom.cdf(ranks - 1, n, q) <= tail]
    fits_above = ranks[scipy_stats.binom.sf(ranks - 1, n, q) <= tail]
    low = float(ordered[fits_below[-1] - 1]) if len(fits_below) else None
    high = float(ordered[fits_above[0] - 1]) if len(fits_above) else None
    value = float(np.quantile(ordered, q, method="averaged_inverted_cdf"))
    return Measurement(value, low, high, n, unit)


def samples_needed(q: float, confidence: float = 0.95) -> int:
    """The least number of samples for which ``percentile`` gives both ends at ``q``; 72 for p95 at 95 %.

    Raises ValueError where ``q`` or the confidence is not between 0 and 1.
    """
    tail = (1 - _checked(confidence)) / 2
    extreme = max(_quantile(q), 1 - q)
    # From one below what the logarithms say, as they and the distribution may round differently.
    n = max(1, math.ceil(math.log(tail) / math.log(extreme)) - 1)
    while max(scipy_stats.binom.cdf(0, n, q), scipy_stats.binom.sf(n - 1, n, q)) > tail:
        n += 1
    return n


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float], n: int, confidence: float = 0.95, unit: str = "", *,
    resamples: int = RESAMPLES, seed: int = 0,
) -> Measurement:
    """Any statistic of ``n`` rows with its percentile bootstrap interval (Efron 1979, Ann. Stat. 7:1).

    ``statistic`` takes the indices of the rows to use, [n], with repetitions. The seed is fixed: the same
    rows give the same interval. One row, or a resample without a value, leaves both ends None. Raises
    ValueError when there are no rows or all of them together have no value.
    """
    if n < 1:
        raise ValueError("no rows to make a statistic of; accepted: at least one")
    value = float(statistic(np.arange(n)))
    if not np.isfinite(value):
        raise ValueError(f"the statistic of all {n} rows is {value}; accepted: a finite number")
    rng = np.random.default_rng(seed)
    drawn = np.array([statistic(rng.integers(0, n, n)) for _ in range(resamples)]) if n > 1 else np.array([])
    if not len(drawn) or not np.isfinite(drawn).all():
        return Measurement(value, None, None, n, unit)
    tail = (1 - _checked(confidence)) / 2
    low, high = (float(v) for v in np.quantile(drawn, [tail, 1 - tail]))
    # A skewed statistic can lie outside the middle of its own resamples.
    return Measurement(value, min(low, value), max(high, value), n, unit)


def mean(samples: Sequence[float], confidence: float = 0.95, unit: str = "") -> Measurement:
    """The mean with its percentile bootstrap interval: timings are too skewed for Student's t."""
    array = _finite(samples)
    return bootstrap(lambda rows: float(array[rows].mean()), len(array), confidence, unit)


def student(samples: Sequence[float], confidence: float = 0.95, unit: str = "") -> Measurement:
    """The mean of a few like readings with Student's interval (Student 1908, Biometrika 6:1); one has none.

    For readings that scatter by little and evenly, such as a process's memory; timings of requests do not.
    """
    array = _finite(samples)
    value, n = float(array.mean()), len(array)
    if n < 2:
        return Measurement(value, None, None, n, unit)
    reach = float(scipy_stats.t.ppf(0.5 + _checked(confidence) / 2, n - 1) * array.std(ddof=1) / np.sqrt(n))
    return Measurement(value, value - reach, value + reach, n, unit)


def exact(value: float, n: int = 1, unit: str = "") -> Measurement:
    """Something counted and not sampled, such as a file's size: the interval is the value."""
    return Measurement(value, value, value, n, unit)


def single(value: float, unit: str = "") -> Measurement:
    """One reading of something that varies: a value without an interval."""
    return Measurement(value, None, None, 1, unit)


def summarize(
    samples: Sequence[float], statistic: str, confidence: float = 0.95, unit: str = ""
) -> Measurement:
    """``mean`` or ``pNN`` (a percentile, ``p50`` being the median) of the samples."""
    if statistic == "mean":
        return mean(samples, confidence, unit)
    quantile = quantile_of(statistic)
    if quantile is None:
        raise ValueError(f"unknown statistic {statistic!r}; accepted: mean, p01 … p99")
    return percentile(samples, quantile, confidence, unit)


def _finite(samples: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(samples, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError(f"found {len(array)} samples; accepted: at least one, all finite")
    return array


def _quantile(q: float) -> float:
    if not 0 < q < 1:
        raise ValueError(f"quantile {q}; accepted: between 0 and 1")
    return q


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}; accepted: between 0 and 1")
    return confidence
