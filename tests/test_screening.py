"""A deploy point is dropped on evidence alone."""

from __future__ import annotations

import pytest

from autotune.constraints import parse
from autotune.search.screening import broken
from autotune.stats import Measurement
from autotune.trials import Screened, Timed
from objectives.steadiness import steadiness
from objectives.timing import Timing
from search_spaces.deploy import DeployParams
from tests.timings import abba

LIMITS = [parse("latency_ms.p50 <= 200"), parse("size_mb <= 100")]


def screened(timing: Timing, size: float = 50.0) -> Screened:
    values = {"latency_ms.p50": Measurement(300, 290, 310, 20, "ms"), "size_mb": Measurement(size, size, size, 1, "MB")}
    return Screened(DeployParams("int8"), values, {}, Timed(steadiness(timing), None, {}))


def test_a_latency_that_nothing_disturbed_can_drop_a_point() -> None:
    assert len(broken(screened(abba([(300, 450)] * 4)), LIMITS)) == 1


@pytest.mark.parametrize("timing", [abba([(300, 450)] * 4, {3: 0.6}, wanted=24),
                                    abba([(200, 300), (250, 375), (300, 450), (350, 525)])])
def test_a_disturbed_or_drifting_latency_drops_none(timing: Timing) -> None:
    assert steadiness(timing).state != "steady"
    assert broken(screened(timing), LIMITS) == []
    assert len(broken(screened(timing, size=200), LIMITS)) == 1  # its size is what it is
