"""Runs beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.comparing.comparison import Comparison, compare, labels_of
from autotune.errors import ConfigError
from autotune.finished import FinishedRun, read_run
from tests import finished_runs, studies
from tests.finished_runs import trial

ACCURACY = {"name": "accuracy", "direction": "maximize", "unit": ""}
SIZE = {"name": "size_mb", "direction": "minimize", "unit": "MB"}


def write(folder: Path, data: str | None = "data/1", threads: int = 1, **changes: Any) -> FinishedRun:
    finished_runs.write(folder, **changes)
    study = studies.study()
    study["target"]["threads"] = threads
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    if data:
        (folder / "inputs.json").write_text(json.dumps({"data": data}), encoding="utf-8")
    return read_run(folder)


def better(folder: Path, **changes: Any) -> FinishedRun:
    """A run whose int8 trial is as good as the other's and smaller, and that has no int4 one."""
    trials = [trial(0, "int8", 8, 0.75, 280, 300), trial(1, "fp16", 8, 0.95, 450, 570)]
    return write(folder, trials=trials, front=[0, 1], selected=None, **changes)


def compared(*runs: FinishedRun, any_target: bool = False, right: Any = None) -> Comparison:
    return compare(runs, right or [{} for _ in runs], any_target)


def test_each_front_is_of_what_meets_its_own_limits(tmp_path: Path) -> None:
    found = compared(write(tmp_path / "a"), better(tmp_path / "b"))
    assert [[t.number for t in e.front] for e in found.entrants] == [[0, 2], [0, 1]]
    assert [e.feasible for e in found.entrants] == [3, 2]
    assert found.covered.dominated == ((2,), ())
    assert found.warnings == ()


def test_a_policys_picks_are_held_against_the_first_runs(tmp_path: Path) -> None:
    found = compared(write(tmp_path / "a"), better(tmp_path / "b"))
    best = {b.policy: b for b in found.best}
    assert [t.number for t in best["smallest"].picks if t] == [0, 0]
    contrasts = best["most-accurate"].contrasts[1]
    assert contrasts["accuracy"].difference == pytest.approx(0.2)
    assert contrasts["accuracy"].settled
    assert not best["smallest"].contrasts[1]["accuracy"].settled


def test_the_same_rows_are_compared_row_by_row(tmp_path: Path) -> None:
    right = [{2: [False] * 20 + [True] * 80}, {1: [True] * 100}]
    same = compared(write(tmp_path / "a"), better(tmp_path / "b"), right=right)
    accurate = next(b for b in same.best if b.policy == "most-accurate").contrasts[1]["accuracy"]
    assert (accurate.how, accurate.n) == ("rows", 100)
    assert same.stretches["size_mb"][-1].settled
    other = compared(write(tmp_path / "a"), better(tmp_path / "b", data="data/2"), right=right)
    assert next(b for b in other.best if b.policy == "most-accurate").contrasts[1]["accuracy"].how == "intervals"
    assert "data differ" in other.warnings[0]


def test_rows_that_are_not_known_to_be_the_same_are_said(tmp_path: Path) -> None:
    found = compared(write(tmp_path / "a", data=None), write(tmp_path / "b"))
    assert "not known whether the runs' rows are the same" in found.warnings[0]


def test_times_of_different_targets_are_refused_by_field(tmp_path: Path) -> None:
    environment = {**finished_runs.document()["environment"], "cpu": "another"}
    runs = write(tmp_path / "a"), write(tmp_path / "b", threads=4, environment=environment)
    with pytest.raises(ConfigError) as caught:
        compared(*runs)
    said = [str(p) for p in caught.value.problems]
    assert len(said) == 2
    assert said[0].startswith("target.threads: 1 in a, 4 in b; accepted: one target for all runs, as latency_ms.p50 is")
    assert "environment.cpu: a processor in a, another in b" in said[1]
    (warning,) = compared(*runs, any_target=True).warnings
    assert "latency_ms.p50: measured on different targets (target.threads: 1 in a, 4 in b; environment.cpu" in warning


def test_accuracy_and_size_may_be_compared_across_targets(tmp_path: Path) -> None:
    found = compared(write(tmp_path / "a"), write(tmp_path / "b", threads=4, objectives=[ACCURACY, SIZE]))
    assert [key for key, _ in found.objectives] == ["accuracy", "size_mb"]
    assert found.left_out == ("latency_ms.p50",)
    assert [b.policy for b in found.best] == ["most-accurate", "smallest", "knee"]
    assert found.warnings == ()


def test_rows_do_not_matter_where_no_answers_are_compared(tmp_path: Path) -> None:
    found = compared(write(tmp_path / "a", objectives=[SIZE]), write(tmp_path / "b", data="data/2"))
    assert found.warnings == ()
    assert (found.gain, found.stretches) == ("size_mb", {})


def test_limits_that_differ_are_said(tmp_path: Path) -> None:
    found = compared(write(tmp_path / "a"), write(tmp_path / "b", constraints=[]))
    assert "limits differ" in found.warnings[0]


def test_a_run_in_which_nothing_fits_has_an_empty_front(tmp_path: Path) -> None:
    strict = [{"expr": "accuracy >= 0.99", "objective": "accuracy", "op": ">=", "unit": "", "bound": 0.99,
               "baseline": None}]
    found = compared(write(tmp_path / "a"), write(tmp_path / "b", constraints=strict))
    assert found.entrants[1].front == ()
    assert found.covered.volumes[1] == 0.0
    assert all(best.picks[1] is None and not best.contrasts[1] for best in found.best)
    assert {s.leaders for s in found.stretches["size_mb"]} == {(0,)}


def test_runs_without_an_objective_in_common_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none in common: a has accuracy; b has size_mb"):
        compared(write(tmp_path / "a", objectives=[ACCURACY]), write(tmp_path / "b", objectives=[SIZE]))
    with pytest.raises(ConfigError, match="none in common"):
        compared(write(tmp_path / "a", objectives=[ACCURACY]),
                 write(tmp_path / "b", objectives=[{**ACCURACY, "direction": "minimize"}]))


def test_labels_tell_folders_apart() -> None:
    assert labels_of([Path("/x/one"), Path("/x/two")]) == ("one", "two")
    assert labels_of([Path("/x/run"), Path("/y/run")]) == ("x/run", "y/run")
    with pytest.raises(ConfigError, match="for the second time"):
        labels_of([Path("/x/run"), Path("/x/run")])
    with pytest.raises(ConfigError, match="1 run"):
        labels_of([Path("/x/run")])
