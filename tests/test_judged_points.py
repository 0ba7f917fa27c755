"""At which deploy points' roundings an adapter is judged at a rung."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autotune.pipeline.tokens import Example
from autotune.search.planning import Planner
from autotune.search.schedule import Budget
from autotune.stats import Measurement
from search_spaces.deploy import DeployParams
from search_spaces.space import Choice, Range, Space

FP16, INT8, INT4 = DeployParams("fp16"), DeployParams("int8"), DeployParams("int4")
SIZES = {FP16: 570.0, INT8: 340.0, INT4: 210.0}
SHORT, LONG = 512, 4000


def planner(*points: DeployParams, rows: int = SHORT, tokens: int = 32, width: int = 1) -> Planner:
    space = Space({"epochs": Choice((3, 1)), "batch_size": Choice((8,))}, points)
    config: Any = SimpleNamespace(file=SimpleNamespace(rungs=[0.2, 0.4, 1]), space=space)
    row = Example(tuple(range(tokens - 2)), (1, 2), "", "")
    prepared: Any = SimpleNamespace(data=SimpleNamespace(train=[row] * rows))
    screened: Any = {
        p: SimpleNamespace(values={"size_mb": Measurement(SIZES[p], SIZES[p], SIZES[p], 1, "MB")}) for p in points}
    limits: Any = None
    return Planner(config, prepared, screened, list(points), limits, Budget(8, None, None), "accuracy", width,
                   lambda latency_ms, row_s: 0.0)


@pytest.mark.parametrize(("rows", "tokens", "width", "judged"), [
    (SHORT, 32, 1, [FP16]), (SHORT, 300, 1, [FP16, INT8]), (LONG, 32, 1, [FP16, INT8, INT4]),
    (LONG, 32, 8, [FP16]),  # eight train at the cost of one, and each would be rounded by itself
])
def test_rounding_is_judged_where_it_costs_little_beside_training(rows, tokens, width, judged):  # type: ignore[no-untyped-def]
    assert planner(FP16, INT8, INT4, rows=rows, tokens=tokens, width=width).judged_points == judged


def test_without_full_precision_among_the_points_the_largest_artifact_is_judged_in_any_case() -> None:
    assert planner(INT8, INT4).judged_points == [INT8]
    assert planner(INT4).judged_points == [INT4]


def test_the_shortest_training_of_a_space_is_what_judging_is_measured_by() -> None:
    assert Space({"epochs": Choice((3, 1)), "rank": Choice((8,))}, ()).fewest_rows(500) == 500
    assert Space({"epochs": Range(0.5, 3.0)}, ()).fewest_rows(500) == 250
    assert Space({}, ()).fewest_rows(500) == 1000
    assert Space({"steps": Choice((100, 60)), "batch_size": Choice((8, 16))}, ()).fewest_rows(500) == 480
