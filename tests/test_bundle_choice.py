"""Which trial is bundled, and what is said where none can be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from autotune.bundle.choice import NothingSelectedError, choose
from autotune.errors import ConfigError
from autotune.finished import read_run
from tests import bundles, finished_runs


def test_the_selected_trial_is_bundled_unless_another_is_asked_for(tmp_path: Path) -> None:
    run = read_run(bundles.written(tmp_path))
    assert choose(run, None).trial.number == 2
    assert not choose(run, None).certified
    shutil.copytree(tmp_path / "run" / "artifacts" / "trial-2", tmp_path / "run" / "artifacts" / "trial-0")
    trials = [{**t, "artifact": "artifacts/trial-0"} if t["number"] == 0 else t for t in run.document["trials"]]
    assert choose(read_run(finished_runs.write(tmp_path / "run", trials=trials)), 0).trial.number == 0


def test_where_nothing_is_selected_the_reason_and_what_there_is_are_said(tmp_path: Path) -> None:
    miss = {"trial": 2, "expr": "accuracy >= 0.9", "shortfall": 0.15, "unit": ""}
    run = read_run(bundles.written(tmp_path, selected=None, nearest_miss=miss))
    with pytest.raises(NothingSelectedError, match=r"trial 2 misses accuracy >= 0\.9 by 0\.15") as caught:
        choose(run, None)
    assert caught.value.exit_code == 3
    assert "--trial takes a trial whose artifact is kept: 2" in str(caught.value)
    assert choose(run, 2).trial.number == 2


@pytest.mark.parametrize(("number", "found"), [
    (0, "its artifact is not on disk any more; accepted: autotune run STUDY --out"),
    (1, "was not kept, as it is not on the front; accepted: a trial whose artifact is kept: 2"),
    (3, "PRUNED: stopped early; accepted: a trial whose artifact is kept: 2"),
    (9, "no such trial; accepted: 0 to 3"),
])
def test_a_trial_that_cannot_be_had_is_named_with_what_brings_it_back(
    tmp_path: Path, number: int, found: str
) -> None:
    with pytest.raises(ConfigError, match=f"trial {number}: .*{found}"):
        choose(read_run(bundles.written(tmp_path)), number)


def test_an_artifact_that_is_not_as_it_was_measured_is_refused(tmp_path: Path) -> None:
    run = bundles.written(tmp_path)
    (run / "artifacts" / "trial-2" / "model.onnx").write_text("weigh")
    with pytest.raises(ConfigError, match=r"its artifact has \d+ bytes, not the \d+ that were measured"):
        choose(read_run(run), None)


def test_an_artifact_outside_the_run_is_refused(tmp_path: Path) -> None:
    run = bundles.written(tmp_path)
    shutil.move(run / "artifacts" / "trial-2", tmp_path / "elsewhere")
    trials = [{**t, "artifact": "../elsewhere"} if t["number"] == 2 else t
              for t in read_run(run).document["trials"]]
    with pytest.raises(ConfigError, match="lies outside the run folder"):
        choose(read_run(finished_runs.write(run, trials=trials)), None)
