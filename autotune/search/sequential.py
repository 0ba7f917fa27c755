"""Stopping early: when the rows seen so far tell that an artifact will not have enough right answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats as scipy_stats

#: The shares of the rows after which one may stop.
LOOKS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)


def stop_rule(
    rows: int, needed: int, error: float, looks: Sequence[float] = LOOKS
) -> tuple[tuple[int, int], ...]:
    """(k, c) for each look at which one may stop: after k of ``rows`` rows, with at most c of them right.

    The question is whether at least ``needed`` of *these* rows are answered right. The guarantee: when the rows
    are asked in random order (`shuffled`), an artifact that would reach ``needed`` is stopped with a probability
    of at most ``error``, all looks together. One that has exactly ``needed`` right has X right among the first k
    with a hypergeometric distribution, and one with more has more, so c is the largest number with
    P(X <= c) <= ``error`` / number of looks (a union bound). Where ``needed`` can no longer be reached even with
    all remaining rows right, c + rows - k < ``needed``, stopping cannot be wrong and c is at least that.

    The distribution is that of sampling without replacement from a finite population (Cochran, Sampling
    Techniques, section 3.8); stopping where the outcome is settled is curtailed sampling, and stopping where
    it is all but settled is in the spirit of Wald, Sequential Analysis (1947).

    Args:
        looks: shares of ``rows``; those that round to no row, to all of them, or to the same number count once
            or not at all.

    Raises:
        ValueError: ``rows`` < 1, ``error`` outside [0, 1), or a look outside (0, 1).
    """
    if rows < 1:
        raise ValueError(f"rows: {rows} found; accepted: at least 1")
    if not 0 <= error < 1:
        raise ValueError(f"error: {error} found; accepted: at least 0, less than 1")
    if not all(0 < look < 1 for look in looks):
        raise ValueError(f"looks: {list(looks)} found; accepted: shares between 0 and 1")
    counts = sorted({k for look in looks if 1 <= (k := round(look * rows)) < rows})
    found = []
    for k in counts:
        c = min(k, max(needed - rows + k - 1, _unlikely(rows, needed, k, error / len(counts))))
        if c >= 0:
            found.append((k, c))
    return tuple(found)


def _unlikely(rows: int, needed: int, k: int, error: float) -> int:
    """The largest c with P(at most c of the first k right | exactly ``needed`` of ``rows`` right) <= ``error``;
    -1 where there is none."""
    if not 0 < needed <= rows:
        return -1
    at_most = scipy_stats.hypergeom.cdf(np.arange(k + 1), rows, needed, k)
    return int(np.count_nonzero(at_most <= error)) - 1


def shuffled(rows: int, seed: int = 0) -> tuple[int, ...]:
    """A fixed random order of 0 … ``rows`` - 1, the same for the same seed."""
    return tuple(np.random.default_rng(seed).permutation(rows).tolist())
