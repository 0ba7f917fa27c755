"""Stages in a Ray cluster, one for this module: as with a worker of one's own, tried again when killed, in parallel."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from autotune.errors import DataError, ProbeError, TrainingError
from autotune.machine_lock import MachineLock
from tests import boards, postgres, studies
from tests.errands import add, refuse, slow, stumble

pytest.importorskip("ray", reason="Ray is not installed: pip install 'autotune-edge[ray]'")

from autotune.ray_workers import RETRIES, DriversLock, RayWorker

DEVICE = {"device:here": 1}
#: Nothing is left to chance or to a clock: every adapter is trained in full and scored everywhere.
STUDY: dict[str, Any] = {
    "objectives": ["accuracy", "size_mb"], "constraints": ["accuracy >= 0.1"], "budget": {"adapters": 4},
    "early_stop_error": 0, "rungs": [0.5, 1],
}


def die_first(tries: Path, out: Path) -> list[str]:
    """Killed in its first try, with half of its work done."""
    with tries.open("a") as file:
        file.write("x")
    found = sorted(p.name for p in out.iterdir())
    (out / f"half-{len(tries.read_text())}").touch()
    if len(tries.read_text()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return found


def die_always(tries: Path) -> None:
    with tries.open("a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayWorker]:
    folder = tmp_path_factory.mktemp("ray")
    lock = DriversLock(MachineLock(folder / "lock"))
    made = RayWorker(folder / "worker.log", lock, [], address=None, count=2, resources={"probe": DEVICE})
    yield made
    made.close()


@pytest.fixture(scope="module")
def cluster(worker: RayWorker) -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


def test_values_errors_and_progress_come_back_and_noise_goes_to_the_log(
    worker: RayWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[float, float, str]] = []
    assert worker.run(add, 2, b=3) == 5
    with pytest.raises(DataError) as caught:
        worker.run(refuse)
    assert caught.value.problems[0].where == "line 3"
    with pytest.raises(ProbeError, match=r"ZeroDivisionError: what now \(log: .*worker.log\)"):
        worker.run(stumble, error=ProbeError)
    assert worker.run(slow, on_progress=lambda *args: seen.append(args), reporting=True) == "done"
    assert seen[-1][2].startswith("part")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert "noise on stderr" in worker._log.read_text()


def test_a_killed_stage_is_tried_again_from_an_empty_folder(worker: RayWorker, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert worker.run(die_first, tmp_path / "tries", tmp_path / "out", outputs=[tmp_path / "out"]) == []
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["half-2"]


def test_one_that_is_killed_every_time_fails_alone(worker: RayWorker, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=f"killed {RETRIES + 1} times"):
        worker.run(die_always, tmp_path / "tries", error=TrainingError)
    assert len((tmp_path / "tries").read_text()) == RETRIES + 1
    assert worker.run(add, 1, 1) == 2


def test_who_waits_for_a_worker_lets_it_have_the_machine(tmp_path: Path) -> None:
    lock, other = DriversLock(MachineLock(tmp_path / "lock")), MachineLock(tmp_path / "lock")
    with lock.working():
        with lock.handed_over(), other.measuring():
            pass  # a worker measures meanwhile, in whatever process
        assert lock._lock._mode() == "working"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The table of a study with one worker of its own."""
    folder = tmp_path_factory.mktemp("alone")
    done = studies.run(studies.write_study(folder, **STUDY), folder / "run")
    assert done.returncode == 0, done.stderr
    return table(folder / "run")


def table(out: Path) -> list[Any]:
    """What was measured of each pair and whether it is on the front, whatever the order that it was tried in."""
    found = studies.results(out)["trials"]
    return sorted([json.dumps(t["params"], sort_keys=True), t["state"], t["on_front"],
                   {key: value["value"] for key, value in t["values"].items() if key in ("accuracy", "size_mb")}]
                  for t in found)


def ray_study(folder: Path, cluster: str, **changes: Any) -> Path:
    ray = {"address": cluster, "count": 2, "resources": {"probe": DEVICE}}
    return studies.write_study(folder, **STUDY, workers={"ray": ray}, **changes)


def test_two_workers_and_a_shared_database_give_the_front_of_one(
    cluster: str, alone: list[Any], tmp_path: Path
) -> None:
    with postgres.server() as url:
        study, out = ray_study(tmp_path, cluster, storage=url), tmp_path / "run"
        done = studies.run(study, out)
        assert done.returncode == 0, done.stdout + done.stderr
        assert table(out) == alone
        assert overlapping(out), "the workers took turns"
        named = json.loads((out / "database.json").read_text())["study"]
        there = optuna.load_study(study_name=named, storage=url).get_trials()
        assert studies.run(study, out).returncode == 0, "the finished run cannot be opened again"
    here = optuna.load_study(study_name="tiny", storage=f"sqlite:///{out / 'study.db'}").get_trials()
    assert [(t.params, t.values) for t in here] == [(t.params, t.values) for t in there]
    for secret in (postgres.PASSWORD, url.partition("autotune:")[2].partition("@")[0]):
        assert secret not in done.stdout + done.stderr
        assert not [p for p in out.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]


def test_workers_train_while_a_device_over_ssh_measures(cluster: str, alone: list[Any], tmp_path: Path) -> None:
    with boards.running(tmp_path / "board") as board:
        target = {**studies.study()["target"], "host": str(board.address), "python": sys.executable}
        study, out = ray_study(tmp_path, cluster, target=target), tmp_path / "run"
        there = {**studies.environment(), "HOME": str(board.client), "SSH_AUTH_SOCK": "",
                 "RAY_AUTH_TOKEN_PATH": str(Path.home() / ".ray" / "auth_token")}
        done = subprocess.run(studies.command(study, out), env=there, capture_output=True, text=True, cwd=tmp_path,
                              timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert table(out) == alone
    assert overlapping(out), "the workers took turns"
    assert "waiting for another measurement" not in done.stdout
    assert studies.results(out)["environment"]["device"]["host"] == str(board.address)


def overlapping(out: Path) -> bool:
    """Whether a stage began while another worked."""
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    spans = sorted({(e["began"], e["ended"]) for e in events if e["event"] == "stage_end" and "began" in e})
    return any(b[0] < a[1] - 0.1 for a, b in itertools.pairwise(spans))


def test_a_worker_killed_in_a_trial_costs_that_stage_alone(cluster: str, alone: list[Any], tmp_path: Path) -> None:
    study, out = ray_study(tmp_path, cluster), tmp_path / "run"
    process = subprocess.Popen(studies.command(study, out), env=studies.environment(), text=True, cwd=tmp_path,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    killed = [kill_a_worker("autotune:train", process), kill_a_worker("autotune:answers", process)]
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stdout + stderr
    assert all(killed)
    assert table(out) == alone
    made = [e["key"] for e in map(json.loads, (out / "events.jsonl").read_text().splitlines())
            if e["event"] == "stage_end" and not e["cached"]]
    assert len(made) == len(set(made)), "a finished stage was made again"


def kill_a_worker(name: str, run: subprocess.Popen[str]) -> int:
    """SIGKILL to a process of the cluster that works on such a stage."""
    while run.poll() is None:
        for found in psutil.process_iter(["cmdline"]):
            if found.info["cmdline"] and found.info["cmdline"][0] == f"ray::{name}":
                found.send_signal(signal.SIGKILL)
                return found.pid
        time.sleep(0.05)
    raise AssertionError(f"no {name} was seen: {run.communicate()}")
