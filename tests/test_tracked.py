"""What MLflow would be told: names that it takes, values with their intervals, and nothing that changes as a param."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotune.finished import read_run
from autotune.study_file import MAY_CHANGE
from autotune.tracked import has_ended, metric_name, study_entry, trial_entry
from tests import finished_runs
from tests.finished_runs import trial, value


@pytest.mark.parametrize(("key", "name"), [
    ("latency_ms.p50", "latency_ms.p50"), ("evaluate:rouge", "evaluate.rouge"), ("my_metrics:f1", "my_metrics.f1"),
    ("größe:maß", "größe.maß"), ("../a>=b", "...a..b"),
])
def test_names(key: str, name: str) -> None:
    assert metric_name(key) == name


def test_a_trials_values_come_with_the_ends_that_are_known_and_their_n(tmp_path: Path) -> None:
    run = read_run(finished_runs.write(tmp_path / "run"))
    entry = trial_entry(run, run.trial(2))
    assert entry.metrics["accuracy"] == 0.75
    assert entry.metrics["accuracy.low"] == pytest.approx(0.69)
    assert entry.metrics["accuracy.n"] == 128
    assert "latency_ms.p95.low" in entry.metrics
    assert "latency_ms.p95.high" not in entry.metrics  # not known
    assert entry.metrics["seconds"] == pytest.approx(119.0)
    assert entry.params["rank"] == "16"
    assert entry.params["symmetric"] == "true"
    assert entry.params["steps"] == "null"
    assert entry.tags == {
        "state": "COMPLETE", "deploy_point": "int8-b32", "feasible": "true", "on_front": "true", "selected": "true",
        "tied_with": "0", "verdicts": "accuracy >= 0.6: PASS; latency_ms.p95 <= 600: INCONCLUSIVE"}
    assert (entry.name, entry.status) == ("trial 2 int8-b32", "FINISHED")
    assert trial_entry(run, run.trial(1)).metrics["seconds"] == pytest.approx(9.0)  # its training was there already


def test_a_stopped_trial_a_failed_one_and_one_that_runs(tmp_path: Path) -> None:
    unjudged = {"feasible": None, "verdicts": {}}
    run = read_run(finished_runs.write(tmp_path / "run", trials=[
        trial(0, "int4", 8, 0.4, 180, 210, state="PRUNED", reason="answers: stopped", **unjudged),
        trial(1, "int4", 8, 0, 0, 0, state="FAILED", values={}, reason="train: the loss is nan", **unjudged),
        trial(2, "int4", 8, 0, 0, 0, state="RUNNING", values={}, **unjudged)], front=[], selected=None))
    stopped, failed = trial_entry(run, run.trial(0)), trial_entry(run, run.trial(1))
    assert (stopped.status, failed.status) == ("KILLED", "FAILED")
    assert stopped.tags["reason"] == "answers: stopped"
    assert "feasible" not in stopped.tags
    assert set(failed.metrics) == {"seconds"}
    assert [has_ended(t) for t in run.trials] == [True, True, False]


def test_the_study_is_told_with_what_was_chosen(tmp_path: Path) -> None:
    run = read_run(finished_runs.write(tmp_path / "run"))
    entry = study_entry(run)
    assert entry.params["data.train"] == "train.jsonl"
    assert json.loads(entry.params["objectives"]) == ["accuracy", "latency_ms.p50", "size_mb"]
    assert not [name for name in entry.params if name.startswith(MAY_CHANGE)]
    assert json.loads(entry.tags["budget"]) == {"adapters": 2}
    assert entry.tags["mlflow.note.content"].startswith("Chosen: trial 2")
    assert (entry.tags["verdict"], entry.tags["selected"], entry.tags["front"]) == ("selected", "2", "[0, 2]")
    assert entry.metrics["accuracy"] == 0.75
    assert entry.metrics["cost.adapters_trained"] == 3


def test_the_certificates_values_come_before_the_searchs(tmp_path: Path) -> None:
    certificate = {"verdict": "PASS", "trial": 0, "text": ["Certified: trial 0."], "looks": [
        {"trial": 0, "verdict": "PASS", "values": {"accuracy": value(0.69, 0.06, 320)}}]}
    run = read_run(finished_runs.write(tmp_path / "run", certificate=certificate, selected={
        "trial": 0, "policy": "most-accurate", "certificate": certificate}))
    entry = study_entry(run)
    assert entry.metrics["accuracy"] == 0.69
    assert entry.metrics["accuracy.n"] == 320
    assert entry.tags["mlflow.note.content"] == "Certified: trial 0."


def test_texts_too_long_for_mlflow_are_cut(tmp_path: Path) -> None:
    folder = finished_runs.write(tmp_path / "run", trials=[trial(0, "int4", 8, 0.7, 1, 1, reason="x" * 9000)],
                                 front=[], selected=None)
    study = (folder / "study.yaml").read_text(encoding="utf-8")
    (folder / "study.yaml").write_text(study + "note: " + "y" * 9000 + "\n", encoding="utf-8")
    run = read_run(folder)
    assert len(trial_entry(run, run.trial(0)).tags["reason"]) == 5000
    assert len(study_entry(run).params["note"]) == 6000
