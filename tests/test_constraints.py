"""Limits: parsed strictly, violated by a share of the bound, judged by intervals."""

from __future__ import annotations

import pytest

from autotune.constraints import parse, total_violation


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
