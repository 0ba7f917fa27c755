"""How many more rows or requests would settle a limit that is INCONCLUSIVE.

The usual power calculation takes the estimate for the truth, and then promises too much: the estimate of an
INCONCLUSIVE measurement may as well lie on the other side of the limit, or on it. So the power is averaged over what
the truth may be, given what was measured: the *assurance* (O'Hagan, Stevens & Campbell 2005, Pharm. Stat. 4:187). The
rate has the Beta posterior of Jeffreys' prior, and the numbers below are the least for which a new sample of that
size settles the limit, PASS or FAIL, with at least that probability.

What holds and what cannot: where truths scatter around the limit at least as widely as the interval is wide, a share
``power`` of new samples settles. No number of rows settles a truth that lies on the limit, so where truths huddle
closer around it than the measurement could tell, less do: at a power of 0.8, three quarters of truths within two
standard errors of the first measurement, and about seven in ten at half of one (benchmarks/calibration.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats as scipy_stats

from autotune.constraints import Op
from autotune.paired import counts

#: No number above this is given: nobody has a test split, or the patience for requests, of that size.
MOST = 100_000
_JEFFREYS = 0.5


def rows_to_settle(
    right: int, n: int, bound: float, op: Op, confidence: float = 0.95, power: float = 0.8
) -> int | None:
    """How many rows in all settle the limit accuracy ``op`` ``bound``, ``right`` of ``n`` having been right.

    Settled is what ``exact_proportion``'s interval decides. Returns ``n`` where these rows settle it already, and
    None where not even ``MOST`` rows would: the estimate sits on the bound, for its precision.

    Raises:
        ValueError: no proportion; a bound that is not between 0 and 1 (1 is accepted for >=, 0 for <=, which a single
            wrong or right row settles); ``confidence`` or ``power`` not between 0 and 1.
    """
    if op == "<=":
        # At most this share right is at least that share wrong.
        right, bound = n - right, 1 - bound
    if n < 1 or not 0 <= right <= n:
        raise ValueError(f"{right} of {n} is no proportion; accepted: 0 <= successes <= n, n >= 1")
    if not 0 < bound <= 1:
        raise ValueError(f"bound {bound}; accepted: between 0 and 1")
    tail = _tail(confidence, power)
    first, last = _undecided(n, bound, tail)
    if not first <= right <= last:
        return n
    a, b = right + _JEFFREYS, n - right + _JEFFREYS

    def assurance(rows: int) -> float:
        first, last = _undecided(rows, bound, tail)
        return 1 - float(scipy_stats.betabinom.pmf(np.arange(first, last + 1), rows, a, b).sum())

    return _least(assurance, n, power)


def samples_to_settle(below: int, n: int, q: float, confidence: float = 0.95, power: float = 0.8) -> int | None:
    """How many requests in all settle a limit on the ``q``-quantile, ``below`` of ``n`` having been at or under it.

    The quantile is within the limit exactly where the share of all requests that are is at least ``q``, so this is
    the question of ``rows_to_settle``, and ``percentile``'s interval decides it as the exact interval of that share
    does. It holds for requests that are independent of one another. Returns and raises as ``rows_to_settle`` does.
    """
    if not 0 < q < 1:
        raise ValueError(f"quantile {q}; accepted: between 0 and 1")
    return rows_to_settle(below, n, q, ">=", confidence, power)


def rows_to_settle_paired(
    right_first: Sequence[bool], right_second: Sequence[bool], share: float, margin: float,
    confidence: float = 0.95, power: float = 0.8,
) -> int | None:
    """How many rows in all settle accuracy of the first - ``share`` · accuracy of the second against ``margin``.

    By the normal approximation: the mean of the rows' differences, whose variance is the observed one with half a row
    added to each of the four counts (Agresti & Min 2005, Stat. Med. 24:729), so that rows without any discordance do
    not seem to be certain. Returns ``n`` where that settles it already, None where ``MOST`` rows would not.

    Raises:
        ValueError: no rows, sides of different lengths, or ``confidence`` or ``power`` not between 0 and 1.
    """
    observed = np.array(counts(right_first, right_second), np.float64)
    n, values = len(right_first), np.array([1 - share, 1.0, -share, 0.0])
    smoothed = (observed + 0.5) / (n + 2)
    deviation = math.sqrt(float(smoothed @ values**2 - (smoothed @ values) ** 2))
    past = float(observed @ values) / n - margin
    z = float(scipy_stats.norm.isf(_tail(confidence, power)))
    if abs(past) > z * deviation / math.sqrt(n):
        return n

    def assurance(rows: int) -> float:
        # Of a new sample's mean, the truth around the observed one and the mean around the truth.
        spread, needed = deviation * math.sqrt(1 / n + 1 / rows), z * deviation / math.sqrt(rows)
        return float(scipy_stats.norm.sf((needed - past) / spread) + scipy_stats.norm.cdf((-needed - past) / spread))

    return _least(assurance, n, power)


def _tail(confidence: float, power: float) -> float:
    for name, value in (("confidence", confidence), ("power", power)):
        if not 0 < value < 1:
            raise ValueError(f"{name} {value}; accepted: between 0 and 1")
    return (1 - confidence) / 2


def _undecided(n: int, bound: float, tail: float) -> tuple[int, int]:
    """The least and the largest number of right rows of ``n`` whose exact interval decides nothing.

    An end of the exact interval is the rate at which this many or more, or this many or fewer, have the probability
    ``tail``. So PASS is P(X >= right) <= tail at the bound, and FAIL is P(X <= right) < tail.
    """
    return int(scipy_stats.binom.ppf(tail, n, bound)), int(scipy_stats.binom.isf(tail, n, bound))


def _least(assurance: Callable[[int], float], n: int, power: float) -> int | None:
    """The least number of rows from ``n`` to ``MOST`` with that assurance, by doubling and halving.

    Whole numbers of rows make the assurance rise in small teeth; what is found is a number that has it, the one
    before it lacking it.
    """
    if assurance(n) >= power:
        return n
    low, high = n, n
    while assurance(high) < power:
        if high >= MOST:
            return None
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if assurance(middle) >= power else (middle, high)
    return high
