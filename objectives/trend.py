"""Whether values rise or fall over time, and how likely chance alone would show as clear a trend."""

from __future__ import annotations

import collections
import itertools
import math
import statistics
from collections.abc import Sequence

#: Up to so many values without ties the distribution is counted out; beyond, the normal one is as good.
_EXACT_UP_TO = 33


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """The median of the slopes between all pairs (Theil 1950; Sen 1968, JASA 63:1379); 0 for a single time."""
    pairs = itertools.combinations(zip(times, values, strict=True), 2)
    return statistics.median([(b - a) / (t - s) for (s, a), (t, b) in pairs if t != s] or [0.0])


def chance(values: Sequence[float]) -> float:
    """The two-sided p of Mann and Kendall's test for a trend of ``values`` in their order (Mann 1945, Econometrica
    13:245): exact for up to 33 values without ties, else normal with the variance that ties leave; 1 where all are
    equal."""
    n = len(values)
    rising = sum(int(b > a) - int(b < a) for a, b in itertools.combinations(values, 2))
    ties = [count for count in collections.Counter(values).values() if count > 1]
    if not ties and n <= _EXACT_UP_TO:
        fewer = (math.comb(n, 2) - abs(rising)) // 2
        return min(1.0, 2 * sum(_orders(n)[: fewer + 1]) / math.factorial(n))
    variance = (_spread(n) - sum(map(_spread, ties))) / 18
    return math.erfc(abs(rising) / math.sqrt(2 * variance)) if variance > 0 else 1.0


def _spread(n: int) -> int:
    return n * (n - 1) * (2 * n + 5)


def _orders(n: int) -> list[int]:
    """How many orders of ``n`` different values have 0, 1, 2, … pairs that fall."""
    counts = [1]
    for values in range(2, n + 1):
        wider = [0] * (len(counts) + values - 1)
        for pairs, count in enumerate(counts):
            for more in range(values):
                wider[pairs + more] += count
        counts = wider
    return counts
