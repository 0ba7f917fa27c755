"""Warm-up ends when times lie level, not after a fixed count."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

import pytest

from objectives.warmup import flat, slope, warm_up


@pytest.mark.parametrize(
    ("times", "level"),
    [
        ([100, 100], False),  # too few to tell
        ([100, 100.4, 99.9], True),
        ([300, 100, 100], False),
        ([300, 100, 101, 100], False),
        ([300, 100, 101, 100, 100.5], False),
        ([300, 100, 101, 100, 100.5, 100], True),  # the slow first request is no longer among the last ones
        ([100, 97, 94, 91, 88], False),
        ([100, 103, 106, 109, 112], False),  # slowing down is not level either
        ([100, 99.8, 99.6, 99.4, 99.2], True),  # 0.8 % over the span is small
        ([110, 95, 104, 92, 107], True),  # no trend in the scatter
        ([900, 500, 300, 100, 100, 100, 100, 100], True),  # only the last ones count
    ],
)
def test_flatness(times: list[float], level: bool) -> None:
    assert flat(times) is level


def test_the_slope_is_the_median_of_all_pairs() -> None:
    assert slope([1, 3, 5, 7]) == 2
    assert slope([1, 3, 5, 100, 9]) == pytest.approx(2)


def after(series: Iterable[float]) -> tuple[int, bool]:
    times = iter(series)
    found = warm_up(lambda: next(times))
    return found.requests, found.flat


def test_warm_up_goes_on_until_it_is_flat() -> None:
    assert after(itertools.repeat(50.0)) == (3, True)
    requests, level = after(itertools.chain((400, 300, 200, 150, 120, 110, 105), itertools.repeat(100.0)))
    assert level
    assert 9 <= requests <= 12


def test_what_never_becomes_flat_ends_at_the_cap_and_says_so() -> None:
    assert after(100.0 + 10 * i for i in itertools.count()) == (40, False)


def test_a_requests_seconds_are_those_of_all_that_it_takes() -> None:
    def request() -> float:
        time.sleep(0.02)
        return 1.0

    assert warm_up(request).seconds >= 0.02
