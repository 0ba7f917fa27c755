"""A finished run's trials under other limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from autotune.choosing.selection import Selection, choose, rounded_out
from autotune.constraints import parse
from autotune.finished import read_run
from tests import finished_runs
from tests.finished_runs import trial, value


def chosen(
    folder: Path, *limits: str, policy: Any = "most-accurate", right: Mapping[int, Sequence[bool]] | None = None,
    **changes: Any,
) -> Selection:
    run = read_run(finished_runs.write(folder / "run", **changes))
    return choose(run, [parse(limit) for limit in limits], policy, right or {})


def test_the_front_is_made_anew_under_the_limits(tmp_path: Path) -> None:
    found = chosen(tmp_path, "size_mb >= 300")
    assert found.choice is not None
    assert (found.choice.trial.number, found.choice.front, found.feasible) == (2, (2,), 2)
    assert chosen(tmp_path, "accuracy >= 0.6", policy="smallest").choice.front == (0, 2)  # type: ignore[union-attr]


def test_a_verdict_is_of_the_interval_though_the_estimate_chose(tmp_path: Path) -> None:
    found = chosen(tmp_path, "accuracy >= 0.7", "size_mb <= 400", "latency_ms.p95 <= 310").choice
    assert found is not None
    assert [h.verdict for h in found.held] == ["INCONCLUSIVE", "PASS", "INCONCLUSIVE"]


def test_others_say_what_they_gain_and_give_up(tmp_path: Path) -> None:
    right = {2: [True] * 96 + [False] * 32, 0: [True] * 90 + [False] * 38}
    found = chosen(tmp_path, "accuracy >= 0.6", right=right).choice
    assert found is not None
    (other,) = found.others
    assert other.trial.number == 0
    assert other.contrasts["latency_ms.p50"].difference == -100
    assert other.contrasts["latency_ms.p50"].settled
    assert other.contrasts["accuracy"].how == "rows"
    assert other.cheaper
    assert not other.tied  # six rows went one way alone: p = 0.03


def test_answers_that_are_not_told_apart_are_tied(tmp_path: Path) -> None:
    found = chosen(tmp_path, "accuracy >= 0.6").choice
    assert found is not None
    assert found.others[0].tied


def test_the_next_best_of_a_front_of_one_lies_behind_it(tmp_path: Path) -> None:
    found = chosen(tmp_path, "size_mb <= 250").choice
    assert found is not None
    assert found.front == (0,)
    assert [o.trial.number for o in found.others] == [3]
    assert not found.others[0].cheaper


def test_a_miss_says_each_limit_that_would_let_a_trial_through(tmp_path: Path) -> None:
    found = chosen(tmp_path, "accuracy >= 0.74", "latency_ms.p95 <= 190", "size_mb <= 300").shortfall
    assert found is not None
    assert (found.miss.trial, found.miss.expr) == (0, "accuracy >= 0.74")
    assert [r.expr for r in found.missed] == ["accuracy >= 0.7", "latency_ms.p95 <= 198.1"]
    assert found.single == ()  # trial 0 misses two, trial 2 two others


def test_one_relaxed_limit_that_is_enough_is_named(tmp_path: Path) -> None:
    found = chosen(tmp_path, "accuracy >= 0.74", "size_mb <= 300").shortfall
    assert found is not None
    assert [(r.constraint.expr, r.trial, r.expr) for r in found.single] == [
        ("accuracy >= 0.74", 0, "accuracy >= 0.7"), ("size_mb <= 300", 2, "size_mb <= 340")]


@pytest.mark.parametrize(("value", "op", "text"), [
    (0.7109375, ">=", "0.7109"), (0.7109375, "<=", "0.711"), (572.018662, "<=", "572.1"), (572.018662, ">=", "572"),
    (12345.6, "<=", "12350"), (0.0, ">=", "0"), (-1.23456, ">=", "-1.235"), (3e-7, "<=", "0.0000003"),
])
def test_a_bound_is_rounded_to_the_side_that_lets_through(value: float, op: str, text: str) -> None:
    assert rounded_out(value, op) == text
    assert parse(f"size_mb {op} {text}").holds(value)


def test_what_the_search_left_off_is_said_where_other_limits_may_let_it_in(tmp_path: Path) -> None:
    stopped = trial(4, "int4", 32, 0.5, 180, 210, state="PRUNED", feasible=None, verdicts={}, reason="stopped")
    large = trial(5, "fp16", 32, 0.5, 450, 570, state="PRUNED", feasible=None, verdicts={}, reason="stopped")
    dropped = [{"deploy": {}, "label": "fp32", "reason": "too large", "values": {"size_mb": value(280.0)}},
               {"deploy": {}, "label": "bf16", "reason": "the CPU EP cannot run it", "values": {}}]
    changes = {"trials": [*finished_runs.document()["trials"], stopped, large], "dropped": dropped}
    unknown = chosen(tmp_path, "size_mb <= 300", **changes).unknown
    assert (unknown.stopped, unknown.dropped) == ((4,), ("fp32",))
    same = chosen(tmp_path, "latency_ms.p95 <= 600", "accuracy >= 0.6", policy="fastest", **changes)
    assert same.unknown.stopped == ()
