"""Exact intervals without SciPy, against SciPy and against the engine's own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from autotune import stats
from objectives import exact


@pytest.mark.parametrize("n", [1, 5, 32, 64, 320, 2000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_bounds_are_clopper_and_pearsons(n: int, confidence: float) -> None:
    for k in {0, 1, n // 3, n - 1, n}:
        low = scipy_stats.beta.ppf(1 - confidence, k, n - k + 1) if k else 0.0
        high = scipy_stats.beta.isf(1 - confidence, k + 1, n - k) if k < n else 1.0
        assert exact.lower_bound(k, n, confidence) == pytest.approx(low, abs=1e-12)
        assert exact.upper_bound(k, n, confidence) == pytest.approx(high, abs=1e-12)


def test_the_tail_is_the_binomial_distributions() -> None:
    for k, n, rate in [(-1, 5, 0.3), (0, 5, 0.3), (3, 5, 0.0), (3, 5, 1.0), (5, 5, 1.0), (17, 40, 0.4), (0, 0, 0.5),
                       (900, 1000, 0.9)]:
        assert exact.at_most(k, n, rate) == pytest.approx(scipy_stats.binom.cdf(k, n, rate), rel=1e-10, abs=1e-300)


@pytest.mark.parametrize("n", [1, 6, 20, 90, 140, 368])
def test_percentiles_and_means_are_those_of_the_certificate(n: int) -> None:
    samples = list(np.random.default_rng(n).lognormal(size=n))
    for q in (0.01, 0.05, 0.5, 0.95, 0.99):
        ours, theirs = exact.percentile(samples, q, 0.95), stats.percentile(samples, q, 0.95)
        assert (ours.value, ours.low, ours.high, ours.n) == (theirs.value, theirs.low, theirs.high, n)
    ours, theirs = exact.mean(samples, 0.9), stats.mean(samples, 0.9)
    assert (ours.value, ours.low, ours.high) == (theirs.value, theirs.low, theirs.high)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_as_many_samples_are_asked_for(confidence: float) -> None:
    for q in (0.05, 0.5, 0.95, 0.99):
        assert exact.samples_needed(q, confidence) == stats.samples_needed(q, confidence)
