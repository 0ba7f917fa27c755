"""The verdicts of a check on a device."""

from __future__ import annotations

import pytest

from objectives.bundle import Limit, Sample
from objectives.exact import Interval
from objectives.verdicts import Answers, judge_answers, judge_limit, overall, rows_to_pass


def judged(n: int, agree: int, right_before: int, low: float | None = 0.63) -> Answers:
    """Of ``n`` answers the first ``agree`` are as certified, the others wrong here; so many were right before, of which
    as many as can be among those that changed."""
    samples = [Sample("text", "joy" if i >= n - right_before else "fear", "joy") for i in range(n)]
    return judge_answers(samples, ["joy "] * agree + ["surprise"] * (n - agree), low)


@pytest.mark.parametrize(("n", "agree", "verdict"), [
    (29, 29, "PASS"), (28, 28, "INCONCLUSIVE"), (47, 46, "PASS"), (64, 62, "PASS"), (64, 61, "INCONCLUSIVE"),
])
def test_a_few_answers_that_turned_out_otherwise_are_no_fault(n: int, agree: int, verdict: str) -> None:
    assert judged(n, agree, n * 7 // 10).verdict == verdict


def test_an_accuracy_clearly_below_the_certificates_fails() -> None:
    found = judged(64, 50, 44)
    assert (found.verdict, found.right) == ("FAIL", 30)
    assert found.most_right < 0.63
    assert judged(64, 55, 44).verdict == "INCONCLUSIVE"  # 35 right: up to 65 % may be
    assert judged(64, 50, 44, low=None).verdict == "INCONCLUSIVE"


def test_sample_rows_that_happen_to_be_hard_are_no_fault_of_the_device() -> None:
    assert judged(64, 64, 10).verdict == "PASS"
    assert judged(64, 61, 33).verdict == "INCONCLUSIVE"  # three changed, which may happen


def test_the_counts_are_told() -> None:
    found = judged(40, 38, 20)
    assert (found.n, found.agree, found.right, found.right_before) == (40, 38, 18, 20)
    assert found.chance == 0.25
    assert rows_to_pass() == 29


@pytest.mark.parametrize(("op", "bound", "interval", "verdict"), [
    ("<=", 300, Interval(270, 260, 300, 90), "PASS"), ("<=", 300, Interval(290, 280, 310, 90), "INCONCLUSIVE"),
    ("<=", 300, Interval(350, 310, None, 90), "FAIL"), ("<=", 300, Interval(100, 90, None, 20), "INCONCLUSIVE"),
    (">=", 30, Interval(40, 30, None, 90), "PASS"), (">=", 30, Interval(20, None, 29, 90), "FAIL"),
    (">=", 30, Interval(40, None, 50, 90), "INCONCLUSIVE"),
])
def test_a_limit_is_held_against_the_whole_interval(op: str, bound: float, interval: Interval, verdict: str) -> None:
    assert judge_limit(Limit("x", "latency_ms.p95", op, bound, False), interval).verdict == verdict


def test_one_failure_decides_and_what_was_not_judged_does_not() -> None:
    assert overall(["PASS", None]) == "PASS"
    assert overall(["PASS", "INCONCLUSIVE", None]) == "INCONCLUSIVE"
    assert overall(["PASS", "INCONCLUSIVE", "FAIL"]) == "FAIL"
