"""Trends without SciPy, against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from objectives import trend


@pytest.mark.parametrize("n", [3, 5, 20, 33, 34, 150])
@pytest.mark.parametrize("ties", [False, True])
def test_chance_and_slope_are_scipys(n: int, ties: bool) -> None:
    draw = np.random.default_rng(n)
    for rise in (0.0, 0.05, -0.5):
        times, values = np.cumsum(draw.uniform(0.2, 2, n)), draw.normal(size=n) + rise * np.arange(n)
        values = values.round() if ties else values
        expected = float(stats.kendalltau(times, values).pvalue)
        assert trend.chance(values.tolist()) == pytest.approx(1.0 if np.isnan(expected) else expected, abs=1e-12)
        assert trend.slope(times.tolist(), values.tolist()) == pytest.approx(stats.theilslopes(values, times)[0])


def test_what_never_moves_has_no_trend() -> None:
    assert (trend.chance([5.0] * 40), trend.slope([1, 2, 3], [5, 5, 5])) == (1.0, 0.0)
    assert trend.slope([1.0], [5.0]) == 0.0
