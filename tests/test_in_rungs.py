"""The comparison of searches in rungs and without: what it counts as their time and as their fronts' worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import in_rungs
from benchmarks.in_rungs import Run

REFERENCE = {"accuracy": 0.6, "latency_ms.p50": 600.0, "size_mb": 600.0}


def values(accuracy: float, ms: float = 100.0, mb: float = 100.0) -> dict[str, float]:
    return {"accuracy": accuracy, "latency_ms.p50": ms, "size_mb": mb}


def run_of(seconds: float, *shares: float, rows: int = 100) -> Run:
    """A front of artifacts alike but for their accuracy: the same on validation and on test rows."""
    right = np.array([[i < round(share * rows) for i in range(rows)] for share in shares], float)
    return Run(seconds, 8, 2, 10.0, tuple(values(share) for share in shares), right)


def test_a_front_is_worth_what_it_dominates_whichever_way_an_objective_goes() -> None:
    assert in_rungs.volume([values(0.7)], REFERENCE) == pytest.approx(0.1 * 500 * 500)
    two = [values(0.7, mb=500.0), values(0.65, ms=550.0)]
    assert in_rungs.volume(two, REFERENCE) == pytest.approx(0.1 * 500 * 100 + 0.05 * 50 * 500 - 0.05 * 50 * 100)
    assert in_rungs.volume([values(0.59), values(0.7, ms=601.0)], REFERENCE) == 0


def test_time_runs_from_the_first_training_to_the_last_answer_and_judging_is_part_of_it() -> None:
    def event(kind: str, stage: str, time: float, seconds: float = 0.0) -> dict[str, Any]:
        return {"event": kind, "stage": stage, "time": time, "seconds": seconds}

    events = [event("stage_end", "answers", 5.0, 4.0), event("stage_start", "rung", 10.0),
              event("stage_end", "rung", 30.0, 20.0), event("stage_end", "judge", 35.0, 5.0),
              event("stage_end", "answers", 60.0, 9.0), event("stage_end", "verify", 99.0, 3.0)]
    assert in_rungs.spent(events) == (50.0, 5.0)


def test_fronts_are_compared_by_rows_that_chose_nothing_and_by_the_same_draws_of_them() -> None:
    same = [(run_of(50.0, 0.7, 0.65), run_of(100.0, 0.7, 0.65)), (run_of(60.0, 0.8), run_of(100.0, 0.8))]
    assert in_rungs.interval(same, REFERENCE, 50) == pytest.approx((1.0, 1.0))
    lines = in_rungs.table({(seed, way): run for seed, pair in enumerate(same)
                            for way, run in zip(in_rungs.WAYS, pair, strict=True)}, REFERENCE)
    assert "In all 0.55 of the time" in lines[-1]
    assert "1.00 [1.00, 1.00] by the 100 test rows" in lines[-1]
    worse = [(run_of(50.0, 0.7), run_of(100.0, 0.8))]
    assert in_rungs.quotient(worse, np.arange(100), REFERENCE) == pytest.approx(0.5)
    low, high = in_rungs.interval(worse, REFERENCE, 200)
    assert low < 0.5 < high < 1
