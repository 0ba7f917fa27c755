"""Relative limits: what they come to as the baseline becomes known, and whose numbers count."""

from __future__ import annotations

import pytest

from autotune.constraints import parse
from autotune.errors import ConfigError
from autotune.search.limits import Limits
from search_spaces.adapter import AdapterParams

CONSTRAINTS = tuple(map(parse, ("accuracy >= 0.9 * baseline", "latency_ms.p95 <= 0.5 * baseline", "size_mb <= 300")))
FIRST, SECOND = AdapterParams(8, 16.0, 1e-3), AdapterParams(16, 16.0, 1e-3)


def bounds(limits: Limits) -> dict[str, float]:
    return {c.objective: c.bound for c in limits.now()}


def test_a_limit_has_no_number_before_its_baseline_is_measured() -> None:
    limits = Limits(CONSTRAINTS, "tuned", "accuracy", "maximize")
    assert bounds(limits) == {"size_mb": 300}
    assert [c.expr for c in limits.shown()] == [c.expr for c in CONSTRAINTS]
    assert limits.need_base
    assert limits.need_tuned


def test_the_tuned_baseline_is_the_best_adapter_so_far_and_never_the_untrained_base() -> None:
    limits = Limits(CONSTRAINTS, "tuned", "accuracy", "maximize")
    limits.learn_base({"accuracy": 0.2, "latency_ms.p95": 400.0})
    assert bounds(limits) == {"latency_ms.p95": 200, "size_mb": 300}
    for adapter, accuracy in ((FIRST, 0.7), (SECOND, 0.8), (FIRST, 0.75)):
        limits.learn_tuned(adapter, {"accuracy": accuracy})
    assert limits.adapter == SECOND
    assert bounds(limits) == {"accuracy": 0.9 * 0.8, "latency_ms.p95": 200, "size_mb": 300}


def test_the_untrained_base_is_the_baseline_where_the_study_says_so() -> None:
    limits = Limits(CONSTRAINTS, "base", "accuracy", "maximize")
    limits.learn_base({"accuracy": 0.2, "latency_ms.p95": 400.0})
    assert bounds(limits)["accuracy"] == 0.9 * 0.2
    assert not limits.need_tuned
    assert limits.adapter is None


def test_a_loss_to_be_minimized_has_the_smallest_as_its_baseline() -> None:
    limits = Limits((parse("mine:loss <= 1.1 * baseline"),), "tuned", "mine:loss", "minimize")
    for adapter, loss in ((FIRST, 2.0), (SECOND, 3.0)):
        limits.learn_tuned(adapter, {"mine:loss": loss})
    assert limits.adapter == FIRST


def test_absolute_limits_ask_for_no_baseline() -> None:
    limits = Limits(CONSTRAINTS[2:], "tuned", "accuracy", "maximize")
    assert not limits.need_base
    assert not limits.need_tuned


def test_with_the_rows_own_prompts_latency_is_the_adapters_too() -> None:
    limits = Limits(CONSTRAINTS[1:], "tuned", "accuracy", "maximize", from_rows=True)
    limits.learn_base({"latency_ms.p95": 400.0})
    assert limits.need_tuned
    assert limits.unresolved() == "latency_ms.p95 <= 0.5 * baseline"
    limits.learn_tuned(FIRST, {"accuracy": 0.7, "latency_ms.p95": 300.0})
    assert limits.unresolved() is None
    assert bounds(limits)["latency_ms.p95"] == 150


def test_times_of_an_untrained_base_that_nobody_takes_are_refused() -> None:
    with pytest.raises(ConfigError, match="baseline: tuned"):
        Limits(CONSTRAINTS, "base", "accuracy", "maximize", from_rows=True)
