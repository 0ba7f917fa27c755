"""Two artifacts on the same rows: differences, their intervals, and how sure one may be."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from autotune import paired
from autotune.stats import Measurement

Flags = tuple[list[bool], list[bool]]


def flags(both: int, only_first: int, only_second: int, neither: int) -> Flags:
    kinds = ((True, True), (True, False), (False, True), (False, False))
    rows = [kind for kind, times in zip(kinds, (both, only_first, only_second, neither), strict=True)
            for _ in range(times)]
    return [first for first, _ in rows], [second for _, second in rows]


@pytest.mark.parametrize(("table", "value", "low", "high"), [
    # Examples of Fagerland, Lydersen & Laake 2017, Statistical Analysis of Contingency Tables, chapter 8.
    ((1, 1, 7, 12), -0.2857, -0.5069, -0.0256),
    ((59, 6, 16, 80), -0.0621, -0.1186, -0.0046),
])
def test_the_interval_is_the_published_one(
    table: tuple[int, int, int, int], value: float, low: float, high: float
) -> None:
    found = paired.mcnemar(*flags(*table), 0.95).difference
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=6e-5)
    assert found.n == sum(table)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (6, 0), (3, 9), (9, 3), (10, 10), (1, 0), (40, 20)])
def test_p_is_that_of_an_exact_binomial_test_and_rows_alike_do_not_matter(only_first: int, only_second: int) -> None:
    differing = only_first + only_second
    expected = scipy_stats.binomtest(only_first, differing).pvalue if differing else 1.0
    for alike in (0, 50):
        found = paired.mcnemar(*flags(30 + alike, only_first, only_second, alike), 0.95)
        assert found.p_value == pytest.approx(expected)
        assert (found.only_first, found.only_second) == (only_first, only_second)


def test_p_by_counting_every_way_the_rows_could_have_fallen() -> None:
    # 7 rows differ, 6 for the first: of all 2**7 ways, those with at least 6 for either side.
    ways = [sum(way) for way in product((0, 1), repeat=7)]
    expected = sum(wins >= 6 or wins <= 1 for wins in ways) / len(ways)
    assert paired.mcnemar(*flags(5, 6, 1, 5), 0.95).p_value == pytest.approx(expected)


@settings(max_examples=150, deadline=None)
@given(st.tuples(*[st.integers(0, 60)] * 4).filter(any), st.sampled_from([0.8, 0.95, 0.99]))
def test_exchanging_the_sides_mirrors_everything(table: tuple[int, int, int, int], confidence: float) -> None:
    first, second = flags(*table)
    one, other = paired.mcnemar(first, second, confidence), paired.mcnemar(second, first, confidence)
    d, mirrored = one.difference, other.difference
    assert (d.value, d.low, d.high) == pytest.approx((-mirrored.value, -mirrored.high, -mirrored.low))  # type: ignore[operator]
    assert (one.p_value, one.only_first) == (other.p_value, other.only_second)
    assert d.low is not None
    assert d.high is not None
    assert -1 <= d.low <= d.value <= d.high <= 1


def test_a_share_of_one_is_the_difference_and_a_share_scales_the_baseline() -> None:
    table = flags(280, 20, 12, 62)
    plain = paired.difference_to_share(*table, 1.0, 0.0, 0.95)
    assert plain == paired.mcnemar(*table, 0.95).difference
    scaled = paired.difference_to_share(*table, 0.97, 0.0, 0.95)
    assert scaled.value == pytest.approx(300 / 374 - 0.97 * 292 / 374)
    assert scaled.low is not None
    assert scaled.high is not None
    assert scaled.low < scaled.value < scaled.high
    # The margin is what it is held against, and not taken off.
    assert paired.difference_to_share(*table, 0.97, -0.01, 0.95) == scaled


def test_pairing_tells_apart_what_two_separate_intervals_could_not() -> None:
    found = paired.difference_to_share(*flags(290, 4, 2, 78), 1.0, -0.03, 0.95)
    assert found.low is not None
    assert found.low > -0.03
    apart = paired.difference_to_share(*flags(230, 64, 62, 18), 1.0, -0.03, 0.95)
    assert apart.low is not None
    assert apart.low < -0.03


@pytest.mark.parametrize("share", [1.0, 0.97])
@pytest.mark.parametrize("chances", [(0.75, 0.05, 0.05, 0.15), (0.94, 0.01, 0.02, 0.03), (0.3, 0.3, 0.2, 0.2)])
def test_the_paired_interval_covers_the_truth(share: float, chances: tuple[float, ...]) -> None:
    drawn = np.random.default_rng(5).multinomial(150, chances, 4000).T
    low, high = paired.paired_interval(*drawn, share, 0.95)
    truth = chances[0] + chances[1] - share * (chances[0] + chances[2])
    assert ((low <= truth) & (truth <= high)).mean() > 0.94


def test_many_rows_do_not_overflow() -> None:
    table = [np.array([n]) for n in (70_000, 5_000, 5_000, 20_000)]
    low, high = paired.paired_interval(*table, 1.0, 0.95)
    assert -low[0] == pytest.approx(high[0])
    assert high[0] == pytest.approx(1.96 * np.sqrt(0.1 / 100_000), rel=0.01)


def test_bootstrap_agrees_with_the_t_test_where_that_is_right() -> None:
    rng = np.random.default_rng(6)
    first, second = rng.normal(0.6, 0.1, 300), rng.normal(0.58, 0.1, 300)
    found = paired.paired_bootstrap(first.tolist(), second.tolist(), 0.95, "F1")
    expected = scipy_stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    assert found.difference.low == pytest.approx(interval.low, abs=0.002)
    assert found.difference.high == pytest.approx(interval.high, abs=0.002)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.02)
    assert (found.difference.n, found.difference.unit) == (300, "F1")
    assert found.only_first + found.only_second == 300
    assert found == paired.paired_bootstrap(first.tolist(), second.tolist(), 0.95, "F1")


def test_bootstrap_of_equal_scores_of_clear_ones_and_of_one_row() -> None:
    same = paired.paired_bootstrap([0.5, 0.1, 1.0], [0.5, 0.1, 1.0])
    assert same == paired.Comparison(Measurement(0.0, 0.0, 0.0, 3, ""), 1.0, 0, 0)
    clear = paired.paired_bootstrap([0.9 + i / 1000 for i in range(50)], [0.1] * 50)
    assert 0 < clear.p_value < 0.01
    assert (clear.only_first, clear.only_second) == (50, 0)
    assert paired.paired_bootstrap([1.0], [0.5]).difference == Measurement(0.5, None, None, 1, "")


def test_a_ratio_is_of_opposite_ends_and_open_where_they_are() -> None:
    first, second = Measurement(120.0, 110.0, 140.0, 20, "ms"), Measurement(100.0, 80.0, 110.0, 20, "ms")
    assert paired.ratio_interval(first, second) == (1.0, 1.75)
    opened = Measurement(100.0, None, None, 2, "ms")
    assert paired.ratio_interval(first, opened) == (None, None)
    assert paired.ratio_interval(Measurement(1.0, 0.5, None, 2, ""), second) == (0.5 / 110, None)
    assert paired.ratio_interval(first, Measurement(1.0, 0.0, 2.0, 2, "")) == (55.0, None)
    with pytest.raises(ValueError, match="never negative"):
        paired.ratio_interval(Measurement(0.0, -1.0, 1.0, 2, ""), second)


def test_rows_that_are_not_the_same_are_refused() -> None:
    for first, second in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="rows to compare"):
            paired.mcnemar(first, second, 0.95)
        with pytest.raises(ValueError, match="rows to compare"):
            paired.paired_bootstrap(first, second)
    with pytest.raises(ValueError, match="not finite"):
        paired.paired_bootstrap([0.1, float("nan")], [0.1, 0.2])
    with pytest.raises(ValueError, match="share 0"):
        paired.difference_to_share([True], [True], 0, 0.0)
    with pytest.raises(ValueError, match="margin -3"):
        paired.difference_to_share([True], [True], 1.0, -3)
