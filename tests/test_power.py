"""How many rows or requests settle what a limit leaves open."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy import stats as scipy_stats

from autotune.certifying import power
from autotune.certifying.power import rows_to_settle, rows_to_settle_paired, samples_to_settle
from autotune.constraints import Op, parse
from autotune.stats import exact_proportion, percentile
from tests.test_paired import flags


def settles(right: int, n: int, bound: float, op: Op, confidence: float = 0.95) -> bool:
    m = exact_proportion(right, n, confidence)
    return parse(f"accuracy {op} {bound}").verdict(m.low, m.high) != "INCONCLUSIVE"


def assurance(rows: int, right: int, n: int, bound: float) -> float:
    """By the long way: power at each rate from every outcome's own interval, integrated over the posterior."""
    decided = np.array([settles(k, rows, bound, ">=") for k in range(rows + 1)])
    posterior = scipy_stats.beta(right + 0.5, n - right + 0.5)

    def at(rate: float) -> float:
        return float(posterior.pdf(rate) * scipy_stats.binom.pmf(np.arange(rows + 1), rows, rate)[decided].sum())

    return float(integrate.quad(at, 0, 1, points=[right / n], limit=200)[0])


@pytest.mark.parametrize(("right", "n", "bound"), [(18, 20, 0.7), (45, 60, 0.65), (38, 40, 0.85)])
def test_it_is_the_least_number_with_the_assurance_that_was_asked_for(right: int, n: int, bound: float) -> None:
    assert not settles(right, n, bound, ">=")
    rows = rows_to_settle(right, n, bound, ">=", 0.95, 0.8)
    assert rows is not None
    assert rows > n
    assert assurance(rows, right, n, bound) >= 0.8
    assert assurance(rows - 1, right, n, bound) < 0.8


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.floats(0, 1), st.floats(0.05, 0.95), st.sampled_from([">=", "<="]),
       st.sampled_from([0.8, 0.95, 0.9875]))
def test_it_asks_for_more_exactly_where_the_verdict_is_open(
    n: int, share: float, bound: float, op: Op, confidence: float
) -> None:
    right = round(share * n)
    mirrored = (right, bound) if op == ">=" else (n - right, 1 - bound)
    first, last = power._undecided(n, mirrored[1], (1 - confidence) / 2)
    assert settles(right, n, bound, op, confidence) == (not first <= mirrored[0] <= last)
    if settles(right, n, bound, op, confidence):
        assert rows_to_settle(right, n, bound, op, confidence) == n


def test_both_directions_of_a_limit_ask_for_the_same() -> None:
    assert rows_to_settle(300, 374, 0.78, ">=") == rows_to_settle(74, 374, 0.22, "<=")


def test_the_nearer_the_estimate_the_more_rows_and_none_when_it_sits_on_the_bound() -> None:
    asked = [rows_to_settle(right, 374, 0.78, ">=") for right in (305, 302, 299, 296, 292)]
    assert None not in asked
    assert asked == sorted(asked)  # type: ignore[type-var]
    assert rows_to_settle(2340, 3000, 0.78, ">=") is None
    # More power, or more confidence, takes more.
    base = rows_to_settle(302, 374, 0.78, ">=")
    assert base is not None
    for more in (rows_to_settle(302, 374, 0.78, ">=", power=0.9), rows_to_settle(302, 374, 0.78, ">=", 0.9875)):
        assert more is not None
        assert more > base


@pytest.mark.parametrize(("n", "bound"), [(100, 0.8), (374, 0.78)])
def test_with_so_many_new_rows_most_open_limits_are_settled(n: int, bound: float) -> None:
    # The truth is near the bound and unknown; what the first rows leave open, new ones settle in 7 of 10 at least.
    rng = np.random.default_rng(7)
    settled = []
    for truth in bound + rng.uniform(-2, 2, 400) * np.sqrt(bound * (1 - bound) / n):
        right = int(rng.binomial(n, truth))
        if not settles(right, n, bound, ">="):
            rows = rows_to_settle(right, n, bound, ">=")
            assert rows is not None
            settled.append(settles(int(rng.binomial(rows, truth)), rows, bound, ">="))
    assert len(settled) > 200
    assert np.mean(settled) > 0.7 - 0.05


def test_a_percentile_limit_is_the_same_question_about_the_share_below_it() -> None:
    limit, rng = 400.0, np.random.default_rng(8)
    for n in (80, 150):
        for shift in np.linspace(0.8, 1.1, 12):
            samples = rng.lognormal(5.6, 0.25, n) * shift
            below = int((samples <= limit).sum())
            m = percentile(samples.tolist(), 0.95)
            settled = parse("latency_ms.p95 <= 400").verdict(m.low, m.high) != "INCONCLUSIVE"
            asked = samples_to_settle(below, n, 0.95)
            assert asked is not None
            assert (asked == n) == settled
            assert asked == rows_to_settle(below, n, 0.95, ">=")


def test_too_few_requests_for_an_upper_end_need_at_least_as_many_as_have_one() -> None:
    asked = samples_to_settle(20, 20, 0.95)
    assert asked is not None
    assert asked >= 72


def test_paired_rows_follow_the_discordance() -> None:
    few = rows_to_settle_paired(*flags(290, 6, 8, 70), 1.0, -0.02)
    many = rows_to_settle_paired(*flags(266, 30, 32, 46), 1.0, -0.02)
    assert few is not None
    assert many is not None
    assert 374 < few < many
    # -0.005 is far from -0.2, and the same rows settle that already.
    assert rows_to_settle_paired(*flags(290, 6, 8, 70), 1.0, -0.2) == 374
    # No row differs: that is no certainty.
    asked = rows_to_settle_paired(*flags(30, 0, 0, 10), 1.0, -0.03)
    assert asked is not None
    assert asked > 40


def test_paired_assurance_by_simulation() -> None:
    table = np.array([280, 16, 22, 56])
    rows = rows_to_settle_paired(*flags(*table), 0.97, 0.0)
    assert rows is not None
    rng = np.random.default_rng(9)
    values, smoothed = np.array([0.03, 1, -0.97, 0]), (table + 0.5) / (374 + 2)
    deviation = np.sqrt(smoothed @ values**2 - (smoothed @ values)**2)
    truths = rng.normal(table @ values / 374, deviation / np.sqrt(374), 40_000)
    means = rng.normal(truths, deviation / np.sqrt(rows))
    assert (np.abs(means) > 1.96 * deviation / np.sqrt(rows)).mean() == pytest.approx(0.8, abs=0.01)


def test_a_certain_answer_is_settled_by_its_first_exception() -> None:
    asked = rows_to_settle(374, 374, 1.0, ">=")
    assert asked is not None
    assert asked > 374


@pytest.mark.parametrize(("right", "n", "bound", "confidence", "share", "reason"), [
    (5, 4, 0.5, 0.95, 0.8, "5 of 4 is no proportion"), (0, 0, 0.5, 0.95, 0.8, "is no proportion"),
    (3, 4, 0.0, 0.95, 0.8, "bound 0"), (3, 4, 1.5, 0.95, 0.8, "bound 1.5"), (3, 4, 0.5, 95, 0.8, "confidence 95"),
    (3, 4, 0.5, 0.95, 1.0, "power 1"),
])
def test_what_makes_no_question_is_refused(
    right: int, n: int, bound: float, confidence: float, share: float, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        rows_to_settle(right, n, bound, ">=", confidence, share)
    with pytest.raises(ValueError, match="quantile 1"):
        samples_to_settle(3, 4, 1.0)
