"""What happens when trials fail, users interrupt, and processes are killed outright."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from autotune.run_folder import RunFolder
from autotune.search.optuna_study import open_study
from autotune.search.proposals import Proposals
from benchmarks import kill_nine
from search_spaces.space import parse_space
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


def test_kill_9_loses_the_current_measurement_alone(tmp_path: Path) -> None:
    study, out = studies.write_study(tmp_path, space=space(), budget={"adapters": 1}), tmp_path / "run"
    process = start_until(study, out, stage_starts("probe", 1))
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


def test_killed_at_random_moments_a_study_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    passes, _ = kill_nine.compare(tmp_path, kills=3, seed=2, adapters=2, rows=48)
    assert sum(len(found.kills) for found in passes) == 3
    assert [fault for found in passes for fault in found.faults] == []


def killed_writes(folder: Path, *pairs: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.killed_writes", str(folder), *pairs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("pairs", [
    ("59:131", "266:163"),  # one death after another
    ("151:0", "157:0", "160:0", "163:0", "164:0"),  # while a training that failed is recorded
], ids=["often", "in a failure"])
def test_killed_between_two_writes_the_database_comes_to_the_same(tmp_path: Path, pairs: tuple[str, ...]) -> None:
    whole, *killed = killed_writes(tmp_path, "0:0", *pairs)
    assert {state for state, *_ in whole["trials"]} == {"COMPLETE", "PRUNED", "FAIL"}
    for found in killed:
        assert found["ended"]
        assert found["deaths"] >= 1
        assert found["trials"] == whole["trials"]
        assert found["proposals"] == whole["proposals"]


def test_a_proposal_that_died_unborn_changes_none_that_follow(tmp_path: Path) -> None:
    space, problems = parse_space(studies.study()["space"])
    assert space, problems

    def proposed(folder: str, *, die: int) -> list[Any]:
        (tmp_path / folder).mkdir()
        study = open_study(f"sqlite:///{tmp_path / folder / 'study.db'}", "s", ["maximize"], ["big"])
        found = []
        for number in range(9):  # the last ones are the sampler's, learned from the others
            if number == die:
                study.ask()  # and no parameter was written
            following = Proposals(study, space, seed=0).next()
            assert following
            Proposals(study, space, seed=0).tell(following[0], [following[1].learning_rate], {})
            found.append(following[1])
        return found

    whole = proposed("whole", die=-1)
    assert proposed("early", die=0) == whole
    assert proposed("late", die=7) == whole


def test_what_a_killed_process_was_writing_goes_with_the_next(tmp_path: Path) -> None:
    for name in (".results.json.4711", ".trials.csv.4711", ".progress-4711", "artifacts/.trial-3.linking/model.onnx",
                 "artifacts/trial-2/model.onnx", ".gitignore"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with RunFolder(tmp_path, "sha", {}):
        left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {".gitignore", ".lock", "artifacts/trial-2/model.onnx", "study.yaml", "environment.json",
                    "events.jsonl"}


def test_a_second_process_is_turned_away_while_one_works(tmp_path: Path) -> None:
    study, out = studies.write_study(tmp_path, space=space(), budget={"adapters": 1}), tmp_path / "run"
    process = start_until(study, out, stage_starts("data", 1))
    second = studies.run(study, out)
    process.kill()
    process.communicate()
    assert second.returncode == 2
    assert "another process works in this run folder" in second.stderr
