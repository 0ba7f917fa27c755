"""Limits: parsed strictly, violated by a share of the bound, judged by intervals."""

from __future__ import annotations

import pytest

from autotune.constraints import parse, resolve_all, total_violation
from autotune.stats import Measurement


def test_violation_is_a_share_of_the_bound_so_that_units_do_not_matter() -> None:
    slow, poor = parse("latency_ms.p95 <= 400"), parse("accuracy >= 0.8")
    assert slow.violation(440) == pytest.approx(0.1)
    assert poor.violation(0.72) == pytest.approx(0.1)
    assert slow.violation(300) == pytest.approx(-0.25)
    assert total_violation((slow, poor), {"latency_ms.p95": 440, "accuracy": 0.9}) == pytest.approx(0.1)


def test_a_missing_number_never_counts_as_met() -> None:
    with pytest.raises(KeyError):
        total_violation((parse("size_mb <= 1"),), {"accuracy": 1.0})


@pytest.mark.parametrize(("low", "high", "verdict"), [
    (300, 390, "PASS"), (390, 410, "INCONCLUSIVE"), (401, 500, "FAIL"), (300, None, "INCONCLUSIVE"),
    (None, 390, "PASS"), (410, None, "FAIL"), (None, None, "INCONCLUSIVE"),
])
def test_a_verdict_is_the_interval_against_the_bound(low: float | None, high: float | None, verdict: str) -> None:
    assert parse("latency_ms.p95 <= 400").verdict(low, high) == verdict


def test_a_lower_bound_is_judged_from_the_other_side() -> None:
    limit = parse("accuracy >= 0.78")
    assert [limit.verdict(*i) for i in ((0.79, 0.9), (0.7, 0.8), (0.6, 0.7))] == ["PASS", "INCONCLUSIVE", "FAIL"]


@pytest.mark.parametrize("expr", ["accuracy", "accuracy > 0.5", "accuracy = 1", "0.5 <= accuracy", "a >= b",
                                  "accuracy >= nan", "accuracy >= inf", "accuracy >= 0.5 0.6"])
def test_other_forms_are_refused(expr: str) -> None:
    with pytest.raises(ValueError, match=expr.split()[0].replace("(", "")):
        parse(expr)


@pytest.mark.parametrize(("expr", "share", "offset", "bound"), [
    ("accuracy >= 0.97 * baseline", 0.97, 0.0, 0.776), ("accuracy >= baseline - 0.03", 1.0, -0.03, 0.77),
    ("accuracy >= baseline", 1.0, 0.0, 0.8), ("accuracy >= 0.9*baseline + 0.01", 0.9, 0.01, 0.73),
])
def test_a_relative_bound_follows_the_baseline(expr: str, share: float, offset: float, bound: float) -> None:
    limit = parse(expr)
    assert limit.relative
    assert (limit.share, limit.offset) == (share, offset)
    resolved = limit.resolved({"accuracy": 0.8})
    assert resolved.bound == pytest.approx(bound)
    assert resolved.offset == pytest.approx(offset)
    assert resolved.resolved({"accuracy": 0.8}) == resolved
    moved = resolved.resolved({"accuracy": 0.9})
    assert moved.bound == pytest.approx(share * 0.9 + offset)


@pytest.mark.parametrize("expr", ["accuracy >= baseline * 2", "accuracy >= 2 * baselin", "accuracy >= 0 * baseline",
                                  "accuracy >= baseline - x", "accuracy >= nan * baseline"])
def test_other_relative_forms_are_refused(expr: str) -> None:
    with pytest.raises(ValueError, match="accuracy"):
        parse(expr)


def test_an_unmeasured_baseline_is_an_error_and_not_a_bound_of_zero() -> None:
    with pytest.raises(KeyError):
        parse("accuracy >= 0.97 * baseline").resolved({"size_mb": 3.0})
    known = resolve_all((parse("accuracy >= baseline"), parse("size_mb <= 0.5 * baseline")), {"size_mb": 300.0})
    assert [(c.objective, c.bound) for c in known] == [("size_mb", 150.0)]


def test_the_sampler_hears_the_worse_end_of_the_interval() -> None:
    limit = parse("accuracy >= 0.8")
    assert limit.margin(Measurement(0.82, 0.72, 0.9, 100, "")) == pytest.approx(0.1)
    assert limit.margin(Measurement(0.82, None, None, 100, "")) == pytest.approx(-0.025)
    assert parse("size_mb <= 100").margin(Measurement(90, 90, 90, 1, "MB")) == pytest.approx(-0.1)


@pytest.mark.parametrize("written", ["=>", "=<", "==", "<"])
def test_another_comparison_is_named_as_it_was_written(written: str) -> None:
    with pytest.raises(ValueError, match=f"compares with '{written}'$"):
        parse(f"size_mb {written} 3")
