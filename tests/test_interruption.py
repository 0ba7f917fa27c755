"""What happens when trials fail, users interrupt, and processes are killed outright."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import studies


def space(**adapter: Any) -> dict[str, Any]:
    base = studies.study()["space"]
    return {"adapter": {**base["adapter"], **adapter}, "deploy": [{"precision": "int4"}]}


def events(out: Path) -> list[dict[str, Any]]:
    path = out / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def start_until(study: Path, out: Path, reached: Callable[[list[dict[str, Any]]], bool]) -> subprocess.Popen[str]:
    process = subprocess.Popen(studies.command(study, out), env=studies.environment(), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=study.parent)
    deadline = time.monotonic() + 120
    while not reached(events(out)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def stage_starts(stage: str, nth: int) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda found: sum(e["event"] == "stage_start" and e.get("stage") == stage for e in found) >= nth


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


METRIC = """
from pathlib import Path

def share(predictions, references):
    calls = Path(__file__).with_name("calls")
    with calls.open("a") as file:
        file.write("x")
    if {condition}:
        raise ValueError("no luck today")
    return [float(p == r) for p, r in zip(predictions, references)]
"""


def test_one_failing_trial_is_recorded_and_the_study_goes_on(tmp_path: Path) -> None:
    # The first call is the untrained base's, the second the first trial's.
    (tmp_path / "mine.py").write_text(METRIC.format(condition="len(calls.read_text()) == 2"))
    study = studies.write_study(tmp_path, space=space(), objectives=["mine:share", "size_mb"], constraints=[],
                                budget={"adapters": 2})
    done = studies.run(study, tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = studies.results(tmp_path / "run")["trials"]
    assert first["state"] == "FAILED"
    assert first["reason"].startswith("score: ")
    assert "no luck today" in first["reason"]
    assert not first["values"]
    assert first["feasible"] is None
    assert second["state"] == "COMPLETE"
    assert second["values"]["mine:share"]["n"] == 18
    assert "failed at score" in done.stdout


def test_three_failures_alike_in_a_row_stop_the_study(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METRIC.format(condition="len(calls.read_text()) > 1"))
    study = studies.write_study(tmp_path, objectives=["mine:share", "size_mb"], constraints=[],
                                budget={"adapters": 4})
    done = studies.run(study, tmp_path / "run")
    assert done.returncode == 1
    assert "3 trials in a row failed at stage score" in done.stderr
    assert "Traceback" not in done.stderr
    found = studies.results(tmp_path / "run")
    assert [t["state"] for t in found["trials"]] == ["FAILED"] * 3


def test_ctrl_c_gives_130_and_the_same_command_goes_on(tmp_path: Path) -> None:
    study, out = studies.write_study(tmp_path, space=space(), budget={"adapters": 1}), tmp_path / "run"
    process = start_until(study, out, stage_starts("train", 1))
    children = [c.pid for c in psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "goes on from here" in stderr
    assert "Traceback" not in stderr
    assert gone(children)
    assert studies.run(study, out).returncode == 0
    assert [t["state"] for t in studies.results(out)["trials"]] == ["COMPLETE"]


@pytest.mark.parametrize(("stage", "nth"), [("train", 1), ("assemble", 2), ("probe", 2)])
def test_kill_9_loses_the_current_stage_alone(tmp_path: Path, stage: str, nth: int) -> None:
    study, out = studies.write_study(tmp_path, space=space(), budget={"adapters": 1}), tmp_path / "run"
    process = start_until(study, out, stage_starts(stage, nth))
    children = [c.pid for c in psutil.Process(process.pid).children(recursive=True)]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert gone(children), "workers outlived their parent"
    finished_before = {e["key"] for e in events(out) if e["event"] == "stage_end"}
    count = len(events(out))

    done = studies.run(study, out)
    assert done.returncode == 0, done.stdout + done.stderr
    made_again = [e for e in events(out)[count:] if e["event"] == "stage_end" and not e["cached"]]
    assert not {e["key"] for e in made_again} & finished_before
    trials = studies.results(out)["trials"]
    assert [t["state"] for t in trials if not (t["reason"] or "").startswith("interrupted")] == ["COMPLETE"]
    assert studies.results(out)["cost"]["adapters_trained"] == 1


def test_a_second_process_is_turned_away_while_one_works(tmp_path: Path) -> None:
    study, out = studies.write_study(tmp_path, space=space(), budget={"adapters": 1}), tmp_path / "run"
    process = start_until(study, out, stage_starts("data", 1))
    second = studies.run(study, out)
    process.kill()
    process.communicate()
    assert second.returncode == 2
    assert "another process works in this run folder" in second.stderr
