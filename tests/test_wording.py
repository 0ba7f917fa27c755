"""How numbers are put into words."""

from __future__ import annotations

import pytest

from autotune.report.wording import interval, number, percent, value
from autotune.stats import Measurement


@pytest.mark.parametrize(("found", "text"), [
    (0.81249, "0.812"), (-0.05, "-0.050"), (0.0004567, "0.000457"), (0.0, "0.000"), (183.4, "183"), (None, "…"),
])
def test_a_number(found: float | None, text: str) -> None:
    assert number(found) == text


@pytest.mark.parametrize(("low", "high", "n", "text"), [
    (217.0, 239.0, 140, "[217, 239], n 140"), (304.0, None, 20, "[304, …], n 20"), (None, None, 20, "[…, …], n 20"),
    (None, None, 1, "one reading"), (228.0, 228.0, 1, "exact"),
])
def test_an_interval_says_which_end_is_not_known(low: float | None, high: float | None, n: int, text: str) -> None:
    assert interval(Measurement(228.0, low, high, n, "ms")) == text


def test_units_and_shares() -> None:
    assert value(Measurement(228.4, None, None, 1, "ms")) == "228 ms"
    assert value(Measurement(0.5, None, None, 1, "")) == "0.500"
    assert percent(0.975) == "97.5 %"
