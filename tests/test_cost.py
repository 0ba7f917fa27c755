"""The account of a study: killed processes count, what was found made does not."""

from __future__ import annotations

from typing import Any

from autotune.report.cost import account


def end(time: float, stage: str, key: str, cached: bool = False, seconds: float = 2.0) -> dict[str, Any]:
    return {"time": time, "event": "stage_end", "stage": stage, "key": key, "cached": cached, "seconds": seconds}


def test_two_processes_add_up_and_the_time_between_them_does_not() -> None:
    cost = account([
        {"time": 0.0, "event": "run_start"}, end(10, "train", "a"), end(14, "assemble", "b"),
        {"time": 1000.0, "event": "run_start"}, end(1001, "train", "a", cached=True, seconds=0),
        end(1005, "assemble", "c", seconds=4), end(1006, "assemble", "c", cached=True),
    ])
    assert cost.made == {"train": 1, "assemble": 2}
    assert cost.seconds == {"train": 2.0, "assemble": 6.0}
    assert cost.wall_s == 14 + 6
    assert cost.reused == 1  # "a"; "c" was made by the process that found it again


def test_nothing_costs_nothing() -> None:
    assert account([]).as_json()["wall_s"] == 0
