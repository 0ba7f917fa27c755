"""Two artifacts asked the same rows: what differs is told from the rows where they differ.

Per-row values of both sides are in the same order. With n rows of right and wrong answers, everything follows from
four counts: rows that both, only the first, only the second, or neither answered right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from autotune.stats import RESAMPLES, Counts, Ends, Measurement, wilson

_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Comparison:
    """``difference`` is first - second; ``p_value`` is two-sided, of there being no difference.

    ``only_first`` and ``only_second`` count the rows on which that side alone was right, or scored higher.
    """

    difference: Measurement
    p_value: float
    only_first: int
    only_second: int


def mcnemar(first: Sequence[bool], second: Sequence[bool], confidence: float = 0.95) -> Comparison:
    """The difference of two shares of right answers on the same rows.

    The p-value is that of McNemar's exact test: were both equally good, each row on which they differ would be as
    likely to favour either (McNemar 1947, Psychometrika 12:153; the binomial form as in Fay 2010, Biostatistics
    11:373). The interval is ``paired_interval``'s. Raises ValueError for no rows or sides of different lengths.
    """
    table = counts(first, second)
    _, only_first, only_second, _ = table
    p_value = min(1.0, 2 * float(scipy_stats.binom.cdf(min(only_first, only_second), only_first + only_second, 0.5)))
    return Comparison(_difference(table, 1.0, confidence), p_value, only_first, only_second)


def difference_to_share(
    right_first: Sequence[bool], right_second: Sequence[bool], share: float, margin: float, confidence: float = 0.95
) -> Measurement:
    """accuracy of the first - ``share`` · accuracy of the second, with ``paired_interval``'s ends.

    This is what a limit relative to a baseline asks for: accuracy >= share · baseline + margin holds where the
    returned difference is at least ``margin``, so it is ``margin`` that the interval is held against; it is not
    subtracted here. Paired, because the baseline was asked the same rows and both find the same rows hard.

    Raises:
        ValueError: no rows or sides of different lengths; ``share`` not positive; a ``margin`` outside
            -share … 1, which no two accuracies differ by.
    """
    if share <= 0:
        raise ValueError(f"share {share}; accepted: above 0, such as 0.97")
    if not -share <= margin <= 1:
        raise ValueError(f"margin {margin}; accepted: {-share:g} to 1, as accuracy - {share:g} · baseline always is")
    return _difference(counts(right_first, right_second), share, confidence)


def _difference(table: tuple[int, int, int, int], share: float, confidence: float) -> Measurement:
    both, only_first, only_second, neither = (np.array([count]) for count in table)
    low, high = paired_interval(both, only_first, only_second, neither, share, confidence)
    n = sum(table)
    value = (table[0] + table[1] - share * (table[0] + table[2])) / n
    return Measurement(value, float(low[0]), float(high[0]), n, "")


def paired_interval(
    both: Counts, only_first: Counts, only_second: Counts, neither: Counts, share: float, confidence: float
) -> tuple[Ends, Ends]:
    """Both ends of the interval of p1 - ``share`` · p2 for arrays of counts of one shape.

    Method 10 of Newcombe 1998 (Stat. Med. 17:2635): the distances of the Wilson ends of p1 and p2 are squared and
    added, less what both share through their correlation φ, which is itself corrected for continuity. A share other
    than 1 scales p2 and its ends, the method of variance estimates recovery (Zou & Donner 2008, Stat. Med. 27:1693).
    benchmarks/calibration.py prints its coverage.
    """
    n = both + only_first + only_second + neither
    right1, right2 = both + only_first, both + only_second
    p1, p2 = right1 / n, right2 / n
    (low1, high1), (low2, high2) = wilson(right1, n, confidence), wilson(right2, n, confidence)
    phi = _correlation(both, only_first, only_second, neither)
    difference = p1 - share * p2
    below = _distance(p1 - low1, share * (high2 - p2), phi)
    above = _distance(high1 - p1, share * (p2 - low2), phi)
    return difference - below, difference + above


def _distance(one: Ends, other: Ends, phi: Ends) -> Ends:
    # Rounding may leave a hair less than 0 where both are equal and wholly correlated.
    distance: Ends = np.sqrt(np.maximum(0.0, one**2 + other**2 - 2 * phi * one * other))
    return distance


def _correlation(both: Counts, only_first: Counts, only_second: Counts, neither: Counts) -> Ends:
    """Newcombe's φ: the product moment correlation, moved towards 0 by n / 2 of its numerator where positive."""
    n, determinant = both + only_first + only_second + neither, both * neither - only_first * only_second
    corrected = np.where(determinant > 0, np.maximum(determinant - n / 2, 0), determinant)
    # As floats: the product of four counts of 100,000 rows is beyond 64 bits.
    margins = np.prod([np.asarray(m, np.float64) for m in (
        both + only_first, only_second + neither, both + only_second, only_first + neither)], axis=0)
    return np.where(margins > 0, corrected / np.sqrt(np.maximum(margins, 1.0)), 0.0)


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95, unit: str = ""
) -> Comparison:
    """The mean difference of other per-row scores, higher being better, with its percentile bootstrap interval.

    Rows are resampled, each with both its scores (Efron & Tibshirani 1993, An Introduction to the Bootstrap, 13). The
    p-value is twice the smaller share of resamples on either side of 0, counting the observed rows as one more
    resample so that it is never 0 (Davison & Hinkley 1997, Bootstrap Methods, 4.2). The seed is fixed. One row leaves
    both ends None. Raises ValueError for no rows, sides of different lengths, or a score that is not finite.
    """
    _same_rows(first, second)
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    if not np.isfinite(differences).all():
        raise ValueError("a row's score is not finite; accepted: numbers")
    n, value = len(differences), float(differences.mean())
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    if n == 1:
        return Comparison(Measurement(value, None, None, n, unit), 1.0, wins, losses)
    drawn = _resampled_means(differences)
    tail = (1 - confidence) / 2
    low, high = (float(v) for v in np.quantile(drawn, [tail, 1 - tail]))
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p_value = min(1.0, 2 * (beyond + 1) / (RESAMPLES + 1))
    return Comparison(Measurement(value, min(low, value), max(high, value), n, unit), p_value, wins, losses)


def _resampled_means(values: Ends) -> Ends:
    rng, n = np.random.default_rng(0), len(values)
    step = max(1, _AT_ONCE // n)
    parts = [values[rng.integers(0, n, (min(step, RESAMPLES - done), n))].mean(axis=1)
             for done in range(0, RESAMPLES, step)]
    return np.concatenate(parts)


def ratio_interval(first: Measurement, second: Measurement) -> tuple[float | None, float | None]:
    """An interval of first / second from both intervals, for times and sizes that were measured apart.

    Each end is the ratio of opposite ends. It misses only where one of the two intervals does: with two of confidence
    1 - α it holds with at least 1 - 2α (Bonferroni's inequality), and with more than 1 - α where the two are
    independent and roughly normal, since half-widths are added where their squares would do. An end is None where an
    end that it is made of is, or where the second may be 0. Raises ValueError where an end is negative.
    """
    if any(end is not None and end < 0 for m in (first, second) for end in (m.low, m.high)):
        raise ValueError(f"a ratio of {first} and {second}; accepted: intervals of what is never negative")
    return _ratio(first.low, second.high), _ratio(first.high, second.low)


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below


def counts(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int, int, int]:
    """Rows that both, only the first, only the second and neither answered right.

    Raises ValueError for no rows or sides of different lengths.
    """
    _same_rows(first, second)
    one, other = np.asarray(first, bool), np.asarray(second, bool)
    return (int((one & other).sum()), int((one & ~other).sum()), int((~one & other).sum()),
            int((~one & ~other).sum()))


def _same_rows(first: Sequence[Any], second: Sequence[Any]) -> None:
    if not len(first) or len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} rows to compare; accepted: the same rows, at least one")
