"""Limits put to a finished run, checked against what it measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotune.choosing.other_limits import limits_for
from autotune.errors import ConfigError
from autotune.finished import read_run
from tests import finished_runs
from tests.finished_runs import trial, value

RELATIVE = {"expr": "accuracy >= 0.9 * baseline", "objective": "accuracy", "op": ">=", "unit": "", "bound": 0.72,
            "baseline": 0.8}


def limits(folder: Path, *required: str, keep: bool = False, **changes: Any) -> list[tuple[str, float]]:
    run = read_run(finished_runs.write(folder / "run", **changes))
    return [(c.expr, c.bound) for c in limits_for(run, required, keep)]


def test_the_studys_own_hold_unless_others_are_required(tmp_path: Path) -> None:
    assert limits(tmp_path) == [("accuracy >= 0.6", 0.6), ("latency_ms.p95 <= 600", 600.0)]
    assert limits(tmp_path, "peak_rss_mb <= 800") == [("peak_rss_mb <= 800", 800.0)]


def test_kept_limits_give_way_on_the_same_side_alone(tmp_path: Path) -> None:
    found = limits(tmp_path, "accuracy >= 0.5", "latency_ms.p95 >= 100", keep=True)
    assert [expr for expr, _ in found] == ["latency_ms.p95 <= 600", "accuracy >= 0.5", "latency_ms.p95 >= 100"]


def test_a_time_without_a_statistic_is_the_median(tmp_path: Path) -> None:
    assert limits(tmp_path, "latency_ms <= 200") == [("latency_ms.p50 <= 200", 200.0)]


def test_every_problem_is_said_at_once_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        limits(tmp_path, "acuracy >= 0.7", "size_mb < 300", "latency_ms.p99 <= 9", "accuracy >= 70", "size_mb <= 300")
    said = [str(problem) for problem in caught.value.problems]
    assert len(said) == 4
    assert "did you mean 'accuracy'?" in said[0]
    assert "peak_rss_mb" in said[0]
    assert "compares with '<'" in said[1]
    assert "latency_ms.p99 was not measured" in said[2]
    assert "a share from 0 to 1" in said[3]


def test_a_value_that_one_trial_lacks_is_not_measured(tmp_path: Path) -> None:
    lacking = trial(1, "int4", 8, 0.7, 200, 200)
    del lacking["values"]["peak_rss_mb"]
    with pytest.raises(ConfigError, match=r"peak_rss_mb was measured in 1 of 2 complete trials"):
        limits(tmp_path, "peak_rss_mb <= 800", trials=[trial(0, "int4", 8, 0.7, 200, 200), lacking], front=[0])


def test_a_relative_bound_rests_on_the_baseline_that_the_study_kept(tmp_path: Path) -> None:
    assert limits(tmp_path, "accuracy >= baseline - 0.1", constraints=[RELATIVE])[0][1] == pytest.approx(0.7)


def test_a_tuned_baseline_that_was_not_kept_is_no_untrained_base(tmp_path: Path) -> None:
    baseline = {"deploy_point": "fp32", "values": {"accuracy": value(0.3, 0.08, 128), "size_mb": value(1000.0)},
                "logits": {}}
    with pytest.raises(ConfigError, match="best adapter at the highest precision, whose accuracy was not kept"):
        limits(tmp_path, "accuracy >= 0.9 * baseline", baseline=baseline)
    assert limits(tmp_path, "size_mb <= 0.3 * baseline", baseline=baseline)[0][1] == pytest.approx(300)
    with pytest.raises(ConfigError, match=r"latency_ms\.p50 was not measured on this run's baseline"):
        limits(tmp_path, "latency_ms.p50 <= 0.5 * baseline", baseline=baseline)


def test_an_untrained_baseline_is_read_from_the_results(tmp_path: Path) -> None:
    folder = finished_runs.write(tmp_path / "run", baseline={
        "deploy_point": "fp32", "values": {"accuracy": value(0.3, 0.08, 128)}, "logits": {}})
    with (folder / "study.yaml").open("a", encoding="utf-8") as file:
        file.write("baseline: base\n")
    (found,) = limits_for(read_run(folder), ["accuracy >= baseline + 0.3"])
    assert (found.bound, found.baseline) == (pytest.approx(0.6), 0.3)


def test_an_own_limit_without_its_number_cannot_be_held(tmp_path: Path) -> None:
    unresolved = {**RELATIVE, "bound": None, "baseline": None}
    with pytest.raises(ConfigError, match="its baseline was not measured"):
        limits(tmp_path, constraints=[unresolved])
    assert limits(tmp_path, "accuracy >= 0.5", constraints=[unresolved]) == [("accuracy >= 0.5", 0.5)]


def test_a_run_without_a_complete_trial_has_nothing_to_choose_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none is complete"):
        limits(tmp_path, trials=[], front=[], selected=None)
