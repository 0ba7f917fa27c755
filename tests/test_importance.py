"""Which parameters mattered."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from autotune.finished import FinishedRun, read_run
from autotune.report.importance import importances
from tests import finished_runs, reports


def recorded(folder: Path, trials: int, **changes: object) -> FinishedRun:
    root = finished_runs.write(folder / "run", **changes)
    reports.record(root, trials)
    return read_run(root)


def test_the_parameter_that_an_objective_follows_leads(tmp_path: Path) -> None:
    found = importances(recorded(tmp_path, 80))
    assert found.warning == ""
    accuracy, latency, size = found.found
    assert max(accuracy.shares, key=lambda name: accuracy.shares[name]) == "learning_rate"
    assert accuracy.shares["learning_rate"] > 0.6
    assert sum(accuracy.shares.values()) == pytest.approx(1)
    assert (accuracy.best, accuracy.trials) == (8, 80)
    assert list(latency.shares) == list(size.shares) == ["precision"]  # the adapter is not asked


def test_few_trials_are_said_to_be_few(tmp_path: Path) -> None:
    found = importances(recorded(tmp_path, 8))
    assert "With 8 complete trials this is a hint at best; about 50 are needed" in found.warning
    assert found.found[0].best == 4


@pytest.mark.parametrize(("trials", "said"), [(0, "0 complete trials cannot tell"), (1, "No parameter was varied"),
                                              (3, "3 complete trials cannot tell")])
def test_too_few_give_no_shares(tmp_path: Path, trials: int, said: str) -> None:
    found = importances(recorded(tmp_path, trials))
    assert found.found == ()
    assert said in found.warning


def test_no_record_or_a_damaged_one_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    run = read_run(finished_runs.write(tmp_path / "run"))
    assert "no study.db" in importances(run).warning
    assert not (run.root / "study.db").exists()
    (run.root / "study.db").write_bytes(b"no database " * 500)
    assert "no study.db" in importances(run).warning
    (run.root / "study.db").unlink()
    reports.record(run.root, 5, name="another")
    assert "no study.db" in importances(run).warning


def test_reading_leaves_the_record_as_it_is(tmp_path: Path) -> None:
    run = recorded(tmp_path, 8)
    shutil.copy(run.root / "study.db", tmp_path / "before.db")
    importances(run)
    assert (run.root / "study.db").read_bytes() == (tmp_path / "before.db").read_bytes()
