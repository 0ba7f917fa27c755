from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from autotune import stats
from autotune.stats import Measurement

ROUNDS = 1500


def test_wilson_agrees_with_scipy_everywhere() -> None:
    for n in (1, 5, 37, 300):
        for k in range(0, n + 1, max(1, n // 7)):
            found = stats.proportion(k, n, 0.9)
            expected = scipy_stats.binomtest(k, n).proportion_ci(0.9, method="wilson")
            assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
            assert (found.value, found.n) == (k / n, n)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_proportion_is_refused(successes: int, n: int) -> None:
    for interval in (stats.proportion, stats.exact_proportion):
        with pytest.raises(ValueError, match="is no proportion"):
            interval(successes, n)


def test_the_exact_interval_agrees_with_scipy_everywhere() -> None:
    for n in (1, 5, 37, 300):
        for k in range(0, n + 1, max(1, n // 7)):
            found = stats.exact_proportion(k, n, 0.9, "share")
            expected = scipy_stats.binomtest(k, n).proportion_ci(0.9, method="exact")
            assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
            assert (found.value, found.n, found.unit) == (k / n, n, "share")


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.9875])
def test_an_end_of_the_exact_interval_is_the_rate_that_would_rarely_give_as_much(confidence: float) -> None:
    m = stats.exact_proportion(292, 374, confidence)
    tail = (1 - confidence) / 2
    assert scipy_stats.binom.sf(291, 374, m.low) == pytest.approx(tail)
    assert scipy_stats.binom.cdf(292, 374, m.high) == pytest.approx(tail)


@pytest.mark.parametrize("n", [20, 100, 374])
def test_the_exact_interval_errs_on_either_side_less_than_promised_at_every_rate(n: int) -> None:
    k = np.arange(n + 1)
    low, high = stats.clopper_pearson(k, np.full(n + 1, n), 0.95)
    for rate in np.linspace(0.01, 0.99, 99):
        chances = scipy_stats.binom.pmf(k, n, rate)
        assert chances[low > rate].sum() <= 0.025
        assert chances[high < rate].sum() <= 0.025


def test_wilson_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    for p in (0.5, 0.8, 0.95):
        hits = 0
        for k in rng.binomial(120, p, ROUNDS):
            m = stats.proportion(int(k), 120, 0.95)
            assert m.low is not None
            assert m.high is not None
            hits += m.low <= p <= m.high
        assert 0.925 < hits / ROUNDS < 0.98


@pytest.mark.parametrize(("q", "n"), [(0.5, 12), (0.5, 60), (0.95, 120), (0.1, 60)])
def test_percentile_intervals_cover_the_truth_whatever_the_distribution(q: float, n: int) -> None:
    rng = np.random.default_rng(2)
    truth = float(scipy_stats.lognorm.ppf(q, 1.0))
    hits = 0
    for _ in range(ROUNDS):
        m = stats.percentile(rng.lognormal(0, 1.0, n).tolist(), q, 0.9)
        assert m.low is not None
        assert m.high is not None
        hits += m.low <= truth <= m.high
    assert hits / ROUNDS > 0.9 - 0.02  # never less than promised; more, because ranks are whole numbers


def test_the_median_of_ten_has_the_ends_of_the_textbook() -> None:
    # P(X(2) <= median <= X(9)) = 0.979 for n = 10.
    assert stats.percentile(range(1, 11), 0.5, 0.95, "ms") == Measurement(5.5, 2.0, 9.0, 10, "ms")


def test_an_end_that_the_samples_cannot_give_is_none() -> None:
    # The largest of n lies above the 95th percentile with probability 1 - 0.95**n: 0.975 takes 72.
    few, enough = (stats.percentile(range(n), 0.95, 0.95) for n in (71, 72))
    assert few.high is None
    assert few.low is not None
    assert enough.high == 71.0
    one = stats.percentile([3.0], 0.5)
    assert (one.value, one.low, one.high) == (3.0, None, None)


@pytest.mark.parametrize(("q", "confidence", "n"), [(0.95, 0.95, 72), (0.5, 0.95, 6), (0.99, 0.95, 368), (0.5, 0.5, 2)])
def test_the_samples_that_a_percentile_needs_are_known(q: float, confidence: float, n: int) -> None:
    assert stats.samples_needed(q, confidence) == n


@settings(max_examples=60, deadline=None)
@given(st.floats(0.03, 0.97), st.floats(0.3, 0.995))
def test_both_ends_exist_from_the_samples_needed_on_and_not_before(q: float, confidence: float) -> None:
    n = stats.samples_needed(q, confidence)
    enough = stats.percentile(range(n), q, confidence)
    assert None not in (enough.low, enough.high)
    if n > 1:
        fewer = stats.percentile(range(n - 1), q, confidence)
        assert None in (fewer.low, fewer.high)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.floats(0.001, 1e6), min_size=1, max_size=150), st.integers(1, 99), st.sampled_from([0.8, 0.95])
)
def test_the_value_lies_within_its_interval(samples: list[float], q: int, confidence: float) -> None:
    m = stats.summarize(samples, f"p{q:02d}", confidence)
    assert m.low is None or m.low <= m.value
    assert m.high is None or m.value <= m.high


def test_bootstrap_is_repeatable_and_close_to_the_normal_interval_of_a_mean() -> None:
    data = np.random.default_rng(3).normal(10, 2, 400)
    first, again = (stats.mean(data.tolist(), 0.95, "ms") for _ in range(2))
    assert first == again
    half = 1.96 * data.std(ddof=1) / 20
    assert first.low == pytest.approx(data.mean() - half, abs=0.05)
    assert first.high == pytest.approx(data.mean() + half, abs=0.05)


def test_bootstrap_covers_the_truth() -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(200):
        data = rng.exponential(1.0, 80)
        m = stats.bootstrap(lambda rows, d=data: float(d[rows].mean()), 80, 0.9, resamples=300)  # type: ignore[misc]
        assert m.low is not None
        assert m.high is not None
        hits += m.low <= 1.0 <= m.high
    assert 0.80 < hits / 200 < 0.97


def test_bootstrap_without_enough_to_resample_has_no_interval() -> None:
    assert stats.mean([4.0]) == Measurement(4.0, None, None, 1, "")
    undefined = stats.bootstrap(lambda rows: float(len(rows)) if len(set(rows)) > 2 else np.nan, 3)
    assert undefined == Measurement(3.0, None, None, 3, "")


def test_numbers_that_are_none_are_refused() -> None:
    for bad in ([], [1.0, float("nan")], [float("inf")]):
        with pytest.raises(ValueError, match="at least one, all finite"):
            stats.percentile(bad, 0.5)
    with pytest.raises(ValueError, match="a finite number"):
        stats.bootstrap(lambda rows: np.nan, 5)
    with pytest.raises(ValueError, match="no rows"):
        stats.bootstrap(lambda rows: 1.0, 0)
    with pytest.raises(ValueError, match="confidence 95"):
        stats.proportion(1, 2, 95)
    with pytest.raises(ValueError, match="quantile 95"):
        stats.samples_needed(95)
    with pytest.raises(ValueError, match="unknown statistic 'max'"):
        stats.summarize([1.0], "max")


def test_counted_things_are_exact_and_single_readings_have_no_interval() -> None:
    assert stats.exact(12.5, unit="MB") == Measurement(12.5, 12.5, 12.5, 1, "MB")
    assert stats.single(40.0, "MB") == Measurement(40.0, None, None, 1, "MB")
