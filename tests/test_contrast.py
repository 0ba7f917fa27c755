"""What tells two trials apart."""

from __future__ import annotations

import pytest

from autotune.comparing.contrast import contrast
from autotune.stats import Measurement


def around(value: float, half: float) -> Measurement:
    return Measurement(value, value - half, value + half, 100, "")


def test_the_same_rows_settle_what_intervals_leave_open() -> None:
    both, worse = [True] * 80 + [False] * 20, [True] * 70 + [False] * 30
    high, low = around(0.8, 0.08), around(0.7, 0.08)
    apart = contrast("accuracy", high, low, 0.95, (both, worse))
    assert (apart.settled, apart.how, apart.n) == (True, "rows", 100)
    assert apart.p_value == pytest.approx(2 * 0.5**10)
    assert apart.difference == pytest.approx(0.1)
    assert not contrast("accuracy", high, low, 0.95).settled


def test_rows_say_nothing_of_another_metric() -> None:
    rows = ([True] * 80 + [False] * 20, [True] * 60 + [False] * 40)
    assert contrast("macro_f1", around(0.8, 0.2), around(0.6, 0.2), 0.95, rows).how == "intervals"


def test_an_end_that_is_not_known_settles_nothing() -> None:
    reading = Measurement(500.0, None, None, 1, "MB")
    assert not contrast("peak_rss_mb", reading, around(100, 1), 0.95).settled
    faster = Measurement(100.0, 99.0, None, 20, "ms")
    slower = Measurement(300.0, 290.0, None, 20, "ms")
    assert not contrast("latency_ms.p95", slower, faster, 0.95).settled
    assert contrast("latency_ms.p95", slower, around(100, 5), 0.95).settled


@pytest.mark.parametrize(("first", "second", "share"), [(150, 100, 0.5), (50, 100, -0.5), (5, 0, None)])
def test_the_share_is_of_the_second(first: float, second: float, share: float | None) -> None:
    assert contrast("size_mb", around(first, 0), around(second, 0), 0.95).share == share
