"""A number held against its limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotune.finished import FinishedRun, read_run
from autotune.report.gauges import line, of_look, of_point, of_trial, remark
from autotune.stats import Measurement
from tests import finished_runs, reports


def run(folder: Path, **changes: Any) -> FinishedRun:
    return read_run(finished_runs.write(folder / "run", **changes))


def test_the_limits_come_first_then_the_other_objectives(tmp_path: Path) -> None:
    found = run(tmp_path)
    gauges = of_trial(found, found.trial(2))
    assert [(g.name, g.limit, g.verdict) for g in gauges] == [
        ("accuracy", "accuracy >= 0.6", "PASS"), ("latency_ms.p95", "latency_ms.p95 <= 600", "INCONCLUSIVE"),
        ("latency_ms.p50", "", ""), ("size_mb", "", "")]


def test_a_certificate_says_what_it_compared_and_what_would_settle_it(tmp_path: Path) -> None:
    found = run(tmp_path, **reports.certified())
    open_ = of_look(found, found.document["certificate"]["looks"][0])[1]
    assert (open_.measured.low, open_.measured.high, open_.measured.unit) == (560, 613, "ms")
    assert open_.remark == "About 900 requests would settle it, 760 more than there were."


@pytest.mark.parametrize(("changes", "said"), [
    ({"verdict": "PASS"}, ""), ({"verdict": "FAIL"}, "wrong side"),
    ({"verdict": "INCONCLUSIVE", "doubt": "the machine slowed down"}, "because the machine slowed down"),
    ({"verdict": "INCONCLUSIVE", "n_to_settle": 700}, "About 700 rows would settle it, 380 more"),
    ({"verdict": "INCONCLUSIVE"}, "no reasonable number"),
])
def test_each_open_limit_says_why(changes: dict[str, Any], said: str) -> None:
    assert said in remark({**reports.held("accuracy >= 0.6", "", 0.6, 0.5, 0.7, 320, 0.6), **changes})


def test_the_untrained_base_stands_by_what_training_changes_alone(tmp_path: Path) -> None:
    base = {"deploy_point": "fp32", "values": {"accuracy": finished_runs.value(0.3, 0.05, 128),
                                               "size_mb": finished_runs.value(1108)}, "logits": {}}
    found = run(tmp_path, baseline=base)
    gauges = {g.name: g for g in of_trial(found, found.trial(2))}
    assert gauges["accuracy"].base is not None
    assert gauges["accuracy"].base.value == 0.3
    assert gauges["size_mb"].base is None


def test_a_point_that_was_dropped_is_held_against_what_it_missed(tmp_path: Path) -> None:
    found = run(tmp_path, **reports.hopeless())
    gauges = of_point(found, found.document["dropped"][0])
    assert [(g.name, g.measured.value) for g in gauges] == [("latency_ms.p95", 720), ("size_mb", 210)]


def test_a_relative_limit_without_its_baseline_draws_no_bound(tmp_path: Path) -> None:
    found = run(tmp_path, constraints=[{"expr": "accuracy >= baseline - 0.1", "objective": "accuracy", "op": ">=",
                                        "unit": "", "bound": None, "baseline": None}])
    assert of_trial(found, found.trial(2))[0].line is None


def test_places_are_in_the_order_of_the_numbers() -> None:
    found = line(Measurement(0.7, 0.64, 0.76, 320, ""), ">=", 0.6, 0.3)
    assert found.base is not None
    assert found.allowed is not None
    assert 0 < found.base < found.allowed[0] < found.low < found.value < found.high < 100
    assert found.allowed[1] == 100


def test_an_open_end_reaches_the_end_and_is_told_apart_from_a_reading() -> None:
    open_ = line(Measurement(309, 304, None, 20, "ms"), "<=", 600)
    assert (open_.high, open_.open_high, open_.open_low) == (100, True, False)
    reading = line(Measurement(497, None, None, 1, "MB"), "<=", 600)
    assert (reading.low, reading.high, reading.open_high) == (reading.value, reading.value, False)


def test_nothing_but_one_number_still_has_a_place() -> None:
    assert line(Measurement(0.0, 0.0, 0.0, 1, "")).value == 50
