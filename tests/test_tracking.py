"""Runs in MLflow's own stores, read back through its own client."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow")

from autotune import tracking
from autotune.errors import ConfigError, TrackingError
from autotune.finished import read_run
from autotune.tracking import RUN_TAG, TRIAL_TAG, log_run, require_usable, run_folder_id, without_password
from tests import finished_runs, studies

START = '{"event": "run_start", "time": 1795638082.619}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with the chosen trial's artifact."""
    made = finished_runs.write(tmp_path / "run")
    (made / "events.jsonl").write_text(START, encoding="utf-8")
    (made / "trials.csv").write_text("number\n", encoding="utf-8")
    (made / "artifacts" / "trial-2").mkdir(parents=True)
    (made / "artifacts" / "trial-2" / "model.onnx").write_bytes(b"weights")
    return made


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return (tmp_path / "mlruns").as_uri()


@pytest.fixture(autouse=True)
def client_may_read_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def found(uri: str, experiment: str = "tone") -> tuple[Any, dict[str, Any]]:
    """The parent and the children by trial number."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    held = client.get_experiment_by_name(experiment)
    assert held is not None
    runs = client.search_runs([held.experiment_id])
    children = {run.data.tags[TRIAL_TAG]: run for run in runs if TRIAL_TAG in run.data.tags}
    parents = [run for run in runs if TRIAL_TAG not in run.data.tags]
    assert len(parents) == 1
    assert len(children) == len(runs) - 1
    return parents[0], children


def files(uri: str, run_id: str, path: str | None = None) -> set[str]:
    from mlflow import MlflowClient

    return {file.path for file in MlflowClient(tracking_uri=uri).list_artifacts(run_id, path)}


def change(folder: Path, **changes: Any) -> None:
    document = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    (folder / "results.json").write_text(json.dumps({**document, **changes}), encoding="utf-8")


def test_a_study_is_a_parent_with_a_child_a_trial(folder: Path, uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    logged = log_run(read_run(folder), uri)
    assert (logged.experiment, logged.trials, logged.new) == ("tone", 4, 4)
    parent, children = found(uri)
    assert parent.info.run_id == logged.run_id
    assert parent.info.start_time == 1795638082619
    assert parent.info.status == "FINISHED"
    assert parent.data.params["data.task"] == "choice"
    assert parent.data.metrics["accuracy"] == 0.75
    assert set(children) == {"0", "1", "2", "3"}
    chosen = children["2"]
    assert chosen.data.tags["mlflow.parentRunId"] == logged.run_id
    assert chosen.data.tags["selected"] == "true"
    assert chosen.data.metrics["latency_ms.p50.low"] == 275
    assert chosen.info.run_name == "trial 2 int8-b32"
    assert files(uri, logged.run_id) == {"results.json", "trials.csv", "study.yaml", "environment.json"}
    assert capfd.readouterr() == ("", "")


def test_logging_again_adds_no_run_and_follows_what_has_changed(folder: Path, uri: str) -> None:
    first = log_run(read_run(folder), uri)
    later = finished_runs.document()["trials"]
    later[2] |= {"on_front": False, "tied_with": None}
    later.append(finished_runs.trial(4, "int8", 32, 0.8, 280, 340, on_front=True))
    change(folder, trials=later, front=[0, 4], selected={"trial": 4, "policy": "most-accurate", "certificate": None})
    again = log_run(read_run(folder), uri)
    assert (again.run_id, again.trials, again.new) == (first.run_id, 5, 1)
    parent, children = found(uri)
    assert parent.data.metrics["accuracy"] == 0.8
    assert parent.data.tags["selected"] == "4"
    assert [children[n].data.tags["on_front"] for n in "024"] == ["true", "false", "true"]
    assert children["2"].data.tags["tied_with"] == "none"
    from mlflow import MlflowClient

    history = MlflowClient(tracking_uri=uri).get_metric_history(children["0"].info.run_id, "accuracy")
    assert len(history) == 1


def test_what_a_broken_connection_left_out_is_added(folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    real, calls = MlflowClient.log_batch, []

    def breaks(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise ConnectionError("the line is dead\nand more")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", breaks)
    with pytest.raises(TrackingError, match=r"did not take the run: the line is dead$"):
        log_run(read_run(folder), uri)
    again = log_run(read_run(folder), uri)
    assert again.new == 2  # trial 1's run was made, without its values
    _, children = found(uri)
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    assert all(run.data.metrics["accuracy"] for run in children.values())


def test_the_model_is_uploaded_once_and_only_where_that_is_asked_for(
    folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    real, uploads = MlflowClient.log_artifacts, []

    def counted(self: Any, *args: Any) -> None:
        uploads.append(args)
        real(self, *args)

    monkeypatch.setattr(MlflowClient, "log_artifacts", counted)
    logged = log_run(read_run(folder), uri, artifact=True)
    log_run(read_run(folder), uri, artifact=True)
    assert files(uri, logged.run_id, "artifacts/trial-2") == {"artifacts/trial-2/model.onnx"}
    assert len(uploads) == 1


def test_a_database_takes_own_metrics_and_two_runs_of_one_study_are_two(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow puts a database's artifacts
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    own = finished_runs.trial(0, "int4", 8, 0.7, 180, 210)
    own["values"]["metrics:brevity"] = finished_runs.value(3.0, 1.0, 20)
    change(folder, trials=[own], front=[], selected=None)
    logged = log_run(read_run(folder), uri)
    _, children = found(uri, "mine")
    assert children["0"].data.metrics["metrics.brevity.high"] == 4.0
    assert log_run(read_run(folder), uri).new == 0
    (folder / "events.jsonl").write_text(START.replace(".619", ".62"), encoding="utf-8")
    assert log_run(read_run(folder), uri).run_id != logged.run_id


def test_a_run_keeps_its_id_where_it_is_moved(folder: Path) -> None:
    before = run_folder_id(read_run(folder))
    assert run_folder_id(read_run(folder.rename(folder.with_name("moved")))) == before
    assert RUN_TAG != TRIAL_TAG


def closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_server_that_does_not_answer_is_named_without_its_password(folder: Path) -> None:
    dead = f"http://user:secret@127.0.0.1:{closed_port()}"
    require_usable(dead)  # a server is not asked before the study
    with pytest.raises(TrackingError, match="did not take the run") as caught:
        log_run(read_run(folder), dead)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert without_password("postgresql://me:pw@db/x") == "postgresql://db/x"


def test_what_cannot_work_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--mlflow: foo://x: .*accepted: sqlite:///FILE"):
        require_usable("foo://x")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"not installed; accepted: pip install 'autotune-edge\[mlflow\]'"):
        require_usable("sqlite:///x.db")


def test_settings_are_ours_for_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    before = dict(os.environ)
    seen = tracking._quietly(lambda: dict(os.environ))
    assert seen["MLFLOW_DISABLE_TELEMETRY"] == seen["DO_NOT_TRACK"] == "true"
    assert seen["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert dict(os.environ) == before


def test_the_command_loses_nothing_to_a_dead_server_and_logs_later(tmp_path: Path, uri: str) -> None:
    space = {**studies.study()["space"], "deploy": [{"precision": "int4"}]}
    study = studies.write_study(tmp_path, budget={"adapters": 1}, space=space)
    out = tmp_path / "tiny-run"
    refused = studies.run(study, out, "--mlflow-artifacts")
    assert (refused.returncode, out.exists()) == (2, False)
    dead = studies.run(study, out, "--mlflow", f"http://127.0.0.1:{closed_port()}")
    assert dead.returncode == 0, dead.stdout + dead.stderr
    assert "did not take the run" in dead.stdout
    assert "the same command logs it later" in dead.stdout
    done = studies.run(study, out, "--mlflow", uri, "--mlflow-artifacts", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["cost"]["adapters_trained"] == 1
    assert "Logged to MLflow: experiment tiny" in done.stderr
    parent, children = found(uri, "tiny")
    assert len(children) == len(document["trials"])
    chosen = document["selected"]["trial"]
    assert f"artifacts/trial-{chosen}/model.onnx" in files(uri, parent.info.run_id, f"artifacts/trial-{chosen}")
