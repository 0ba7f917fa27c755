"""What the sampler is told of adapters that are not scored everywhere."""

from __future__ import annotations

import pytest

from autotune.search.rungs import Outcome
from autotune.search.telling import expected
from tests.searching import POINTS, adapter, make_plan, scored, state


def test_measured_values_are_told_as_they_are_and_the_rest_as_forecast() -> None:
    whole = adapter(0, (0.2, 0.4, 1.0), 0.7, scored=scored(0.7, *POINTS))
    part = adapter(1, (0.2, 0.4, 1.0), 0.7, scored=scored(0.74, "int4"))
    begun, fresh = adapter(2, (0.2,), 0.65), adapter(3)
    found = expected(state(whole, part, begun, fresh), make_plan())
    assert found[0].values == pytest.approx((0.7, 0.65))  # at the largest and at the smallest artifact
    assert found[0].violations["accuracy >= 0.6"] == pytest.approx(-1 / 6)
    assert found[1].values[1] == pytest.approx(0.69)
    assert found[1].values[0] > found[0].values[0]
    assert found[2].values[0] < found[0].values[0]
    assert 3 not in found


def test_violations_are_those_of_the_point_that_is_nearest_to_all_limits() -> None:
    poor = adapter(0, (0.2, 0.4, 1.0), 0.5, scored=scored(0.5, *POINTS))
    found = expected(state(poor), make_plan())[0]
    assert found.violations["accuracy >= 0.6"] == pytest.approx(1 / 6)
    assert found.violations["size_mb <= 600"] < 0


def test_several_keys_of_answers_have_a_value_each() -> None:
    found = expected(state(adapter(0, (0.2,), 0.7)), make_plan(), ("accuracy", "macro_f1"))
    assert len(found[0].values) == 4


def test_times_that_an_adapter_decides_are_told_as_the_others_had_them() -> None:
    """Where requests are the rows' own, a stopped adapter's latency is not its forecast of right answers."""
    sizes = {p: {"size_mb": v["size_mb"]} for p, v in POINTS.items()}
    ms = {"fp16": 100.0, "int8": 60.0, "int4": 50.0}
    whole = adapter(0, (0.2, 0.4, 1.0), 0.7, scored={
        p: Outcome("COMPLETE", {"accuracy": 0.7, "latency_ms.p50": ms[p], **sizes[p]}) for p in POINTS})
    plan = make_plan(points=sizes)
    found = expected(state(whole, adapter(1, (0.2,), 0.6)), plan, ("accuracy", "latency_ms.p50"))
    assert found[1].values[2:] == (100.0, 50.0)
    assert found[1].violations["latency_ms.p50 <= 70"] == pytest.approx(60 / 70 - 1)
    nobody = expected(state(adapter(0, (0.2,), 0.6)), plan, ("accuracy", "latency_ms.p50"))
    assert nobody[0].values[2:] == (0.0, 0.0)
