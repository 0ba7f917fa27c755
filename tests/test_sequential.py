from __future__ import annotations

import numpy as np
import pytest

from autotune.search.sequential import shuffled, stop_rule


def stopped_at(right: np.ndarray, rule: tuple[tuple[int, int], ...]) -> np.ndarray:
    """For each row of ``right`` [runs, rows], whether and where the rule stops: rows asked."""
    total = np.cumsum(right, axis=1)
    asked = np.full(len(right), right.shape[1])
    for k, c in reversed(rule):
        asked[total[:, k - 1] <= c] = k
    return asked


def runs(rows: int, right: int, count: int) -> np.ndarray:
    answers = np.tile(np.arange(rows) < right, (count, 1))
    return np.random.default_rng(1).permuted(answers, axis=1)


@pytest.mark.parametrize(("rows", "needed", "error"), [(128, 77, 0.05), (128, 77, 0.01), (374, 299, 0.1), (40, 4, 0.2)])
def test_an_artifact_that_would_reach_what_is_needed_is_rarely_stopped(rows: int, needed: int, error: float) -> None:
    rule = stop_rule(rows, needed, error)
    assert rule
    for right in (needed, needed + 1):
        wrong = (stopped_at(runs(rows, right, 20_000), rule) < rows).mean()
        assert wrong <= error
    # ... nor is it a rule that never stops anything.
    assert (stopped_at(runs(rows, needed // 4, 1000), rule) < rows).mean() > 0.5


def test_a_clearly_bad_artifact_is_stopped_by_half() -> None:
    rule = stop_rule(128, round(0.6 * 128), 0.05)
    asked = stopped_at(runs(128, round(0.3 * 128), 2000), rule)
    assert (asked <= 64).mean() > 0.95
    assert asked.mean() < 40


def test_what_cannot_be_reached_is_stopped_without_any_error() -> None:
    rule = dict(stop_rule(8, 6, 0.0))
    assert rule == {3: 0, 4: 1, 5: 2, 6: 3, 7: 4}
    # One more right, and the rest could still do it.
    assert all(c + 1 + 8 - k >= 6 for k, c in rule.items())


def test_nothing_needed_never_stops_and_too_much_always_does() -> None:
    assert stop_rule(100, 0, 0.05) == ()
    assert stop_rule(100, -3, 0.05) == ()
    assert stop_rule(100, 200, 0.05)[0] == (12, 12)


def test_looks_are_increasing_and_before_the_end() -> None:
    for rows in (1, 2, 3, 5, 30, 1000):
        looks = [k for k, _ in stop_rule(rows, rows, 0.05)]
        assert looks == sorted(set(looks))
        assert all(0 < k < rows for k in looks)


def test_more_may_be_missing_later() -> None:
    rule = stop_rule(200, 120, 0.05)
    assert [c for _, c in rule] == sorted(c for _, c in rule)
    assert rule[-1][1] < 120


@pytest.mark.parametrize(
    ("rows", "error", "looks", "reason"),
    [(0, 0.05, (0.5,), "rows: 0"), (9, 1.0, (0.5,), "error: 1.0"), (9, -0.1, (0.5,), "error"),
     (9, 0.1, (1.0,), "looks")],
)
def test_what_makes_no_rule_is_refused(rows: int, error: float, looks: tuple[float, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        stop_rule(rows, 1, error, looks)


def test_the_order_is_random_whole_and_always_the_same() -> None:
    order = shuffled(128)
    assert sorted(order) == list(range(128))
    assert order != tuple(range(128))
    assert order == shuffled(128) != shuffled(128, seed=1)
    # Whatever the numpy: measurements of other days are compared with today's.
    assert shuffled(6) == SIX


SIX = (3, 2, 5, 4, 0, 1)
