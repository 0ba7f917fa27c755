"""At which deploy points' roundings an adapter is judged at a rung."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from autotune.search.planning import Planner
from autotune.search.schedule import Budget
from autotune.stats import Measurement
from search_spaces.deploy import DeployParams

FP32, FP16, INT8, INT4 = DeployParams("fp32"), DeployParams("fp16"), DeployParams("int8"), DeployParams("int4")
SIZES = {FP32: 1140.0, FP16: 570.0, INT8: 340.0, INT4: 210.0}


def judged(*points: DeployParams) -> list[DeployParams]:
    screened: Any = {
        p: SimpleNamespace(values={"size_mb": Measurement(SIZES[p], SIZES[p], SIZES[p], 1, "MB")}) for p in points}
    unused: Any = None
    return Planner(unused, unused, screened, points, unused, Budget(8, None, None), "accuracy", 1,
                   lambda latency_ms, row_s: 0.0).judged_points()


def test_what_full_precision_tells_is_asked_once_and_stands_for_the_rest() -> None:
    assert judged(INT4, FP16, INT8) == [FP16]
    assert judged(INT4, FP16, FP32) == [FP16, FP32]


def test_without_full_precision_among_the_points_the_largest_artifact_is_judged() -> None:
    assert judged(INT4, INT8) == [INT8]
    assert judged(INT4) == [INT4]
