"""Where the time went."""

from __future__ import annotations

import pytest

from autotune.report.time_spent import time_spent

COST = {"wall_s": 100.0, "seconds_by_stage": {"train": 60.0, "answers": 30.0, "own": 2.0}}


def end(stage: str, key: str, cached: bool, seconds: float = 0.0) -> dict[str, object]:
    return {"event": "stage_end", "time": 0.0, "stage": stage, "key": key, "cached": cached, "seconds": seconds}


def test_stages_stand_in_the_order_of_a_run_and_the_rest_is_named() -> None:
    rows = time_spent(COST, [])
    assert [(r.title, r.seconds) for r in rows] == [
        ("training adapters", 60.0), ("scoring answers", 30.0), ("own", 2.0),
        ("starting, searching and waiting", pytest.approx(8.0))]
    assert sum(r.share for r in rows) == pytest.approx(1)


def test_made_counts_all_processes_and_reused_what_the_last_one_did_not_make() -> None:
    events = [
        {"event": "run_start", "time": 0.0}, end("train", "a", False, 30), end("train", "a", True),
        {"event": "run_start", "time": 50.0}, end("base", "b", True), end("train", "a", True), end("train", "a", True),
        end("train", "c", False, 30), end("train", "c", True),
    ]
    rows = {r.stage: (r.made, r.reused) for r in time_spent(COST, events)}
    assert rows["train"] == (2, 1)
    assert rows["base"] == (0, 1)


def test_a_run_of_no_time_at_all() -> None:
    assert time_spent({"wall_s": 0.0, "seconds_by_stage": {}}, []) == []
