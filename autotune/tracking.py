"""A run logged to MLflow: the study as a parent run, each trial as a child of it, and no one twice.

MLflow is optional, so it is imported in functions alone. Its telemetry is off and what it prints is not shown.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from autotune.errors import ConfigError, Problem, TrackingError
from autotune.finished import FinishedRun
from autotune.tracked import Entry, has_ended, study_entry, trial_entry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")
#: Which MLflow runs are of this run folder, and which trial each is.
RUN_TAG, TRIAL_TAG = "autotune.run", "autotune.trial"
FILES = ("results.json", "trials.csv", "report.html", "certificate.json", "study.yaml", "environment.json")
_ACCEPTED = "sqlite:///FILE, another database, a folder, http://SERVER or https://SERVER"
_ALWAYS = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
#: Where the user's environment says nothing. MLflow's own patience with a server is minutes.
_UNLESS_SET = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
               "MLFLOW_ALLOW_FILE_STORE": "true", "GIT_PYTHON_REFRESH": "quiet"}


@dataclass(frozen=True)
class Logged:
    """What MLflow holds now. ``run_id`` is the parent's; of ``trials`` children ``new`` were made this time."""

    experiment: str
    run_id: str
    trials: int
    new: int

    def sentence(self) -> str:
        return (f"Logged to MLflow: experiment {self.experiment}, run {self.run_id} with "
                f"{self.trials} trial{'s' * (self.trials != 1)}, {self.new} of them new.")


def require_usable(uri: str) -> None:
    """Before any work. A server is not asked, a database is opened.

    Raises:
        ConfigError: MLflow is not installed, or the URI is none that it could log to.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigError([Problem("--mlflow", "", "MLflow is not installed", "pip install 'autotune-edge[mlflow]'")])
    try:
        _quietly(lambda: _client(uri))
    except Exception as error:  # noqa: BLE001 (MLflow raises its own, SQLAlchemy's and the system's errors)
        raise ConfigError([Problem("--mlflow", without_password(uri), _first_line(error), _ACCEPTED)]) from None


def log_run(run: FinishedRun, uri: str, *, artifact: bool = False) -> Logged:
    """Log a run, or what MLflow does not hold of it yet; with ``artifact`` the selected model's folder too.

    The experiment is ``$MLFLOW_EXPERIMENT_NAME``, or named as the study.

    Raises:
        TrackingError: MLflow did not take it. The run folder is not touched, and logging again goes on.
    """
    try:
        return _quietly(lambda: _log(_client(uri), run, artifact))
    except Exception as error:
        raise TrackingError(
            f"MLflow at {without_password(uri)} did not take the run: {_first_line(error)}") from error


def run_folder_id(run: FinishedRun) -> str:
    """The same wherever the run folder is moved, another for each run of a study: made of the study and its start."""
    begun = next((str(event["time"]) for event in run.events()), "")
    return hashlib.sha256(f"{run.document['study']['config_sha256']}/{begun}".encode()).hexdigest()[:16]


def without_password(text: str) -> str:
    """A message, URIs in it without user and password."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _log(client: MlflowClient, run: FinishedRun, artifact: bool) -> Logged:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.name
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found else client.create_experiment(name)
    identity = run_folder_id(run)
    known = _known(client, experiment, identity)
    events = run.events()
    began = int(1000 * events[0]["time"]) if events else None
    parent = _write(client, experiment, known.get(None), study_entry(run), {RUN_TAG: identity}, began)
    ended = [trial for trial in run.trials if has_ended(trial)]
    for trial in ended:
        tags = {RUN_TAG: identity, TRIAL_TAG: str(trial.number), "mlflow.parentRunId": parent}
        _write(client, experiment, known.get(str(trial.number)), trial_entry(run, trial), tags)
    for file in FILES:
        if (run.root / file).is_file():
            client.log_artifact(parent, str(run.root / file))
    chosen = run.trial(run.selected).artifact if artifact and run.selected is not None else None
    if chosen:
        _upload(client, parent, chosen, f"artifacts/{chosen.name}")
    new = sum(str(trial.number) not in known for trial in ended)
    return Logged(name, parent, len(ended), new)


def _known(client: MlflowClient, experiment: str, identity: str) -> dict[str | None, Run]:
    """What was logged of this run folder before, by the trial's number; None is the study."""
    found: dict[str | None, Run] = {}
    token = None
    while True:
        page = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{identity}'", page_token=token)
        found |= {run.data.tags.get(TRIAL_TAG): run for run in page}
        token = page.token
        if not token:
            return found


def _write(
    client: MlflowClient, experiment: str, known: Run | None, entry: Entry, tags: Mapping[str, str],
    began: int | None = None,
) -> str:
    """Make the MLflow run, or add to it what it lacks; returns its id. ``began`` is in ms since 1970."""
    from mlflow.entities import Metric, Param, RunTag

    run = known or client.create_run(experiment, began, dict(tags), entry.name)
    have, now = run.data, int(1000 * time.time())
    client.log_batch(
        run.info.run_id,
        [Metric(key, value, now, 0) for key, value in entry.metrics.items() if have.metrics.get(key) != value],
        [Param(key, value) for key, value in entry.params.items() if key not in have.params],
        [RunTag(key, value) for key, value in entry.tags.items() if have.tags.get(key) != value],
    )
    if run.info.status != entry.status:
        client.set_terminated(run.info.run_id, entry.status)
    return str(run.info.run_id)


def _upload(client: MlflowClient, run_id: str, folder: Path, path: str) -> None:
    """A folder of large files, unless it is there in full."""
    there = {Path(file.path).name: file.file_size for file in client.list_artifacts(run_id, path)}
    if there != {file.name: file.stat().st_size for file in folder.iterdir()}:
        client.log_artifacts(run_id, str(folder), path)


def _quietly(work: Callable[[], T]) -> T:
    """Do it with MLflow's telemetry off and without what it prints."""
    with _environment(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return work()


@contextmanager
def _environment() -> Iterator[None]:
    """MLflow reads its settings when it is imported and at each call; the process's own are put back."""
    before = dict(os.environ)
    os.environ.update({**{k: v for k, v in _UNLESS_SET.items() if k not in before}, **_ALWAYS})
    try:
        yield
    finally:
        for name in (*_ALWAYS, *_UNLESS_SET):
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)


def _first_line(error: Exception) -> str:
    text = without_password(str(error)).strip().partition("\n")[0]
    return f"{text[:300]}{'…' * (len(text) > 300)}" or type(error).__name__
