"""`autotune device` and a whole study on a device, by the real command line against a real sshd."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from autotune.machine_lock import VARIABLE, MachineLock
from autotune.report.results import schema
from tests import artifacts, boards, studies
from tests.boards import Board


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with boards.running(tmp_path_factory.mktemp("board")) as found:
        (found.client / ".config" / "autotune").mkdir(parents=True)
        (found.client / ".config" / "autotune" / "devices.yaml").write_text(
            f"bench: {{host: '{found.address}', python: {sys.executable}, quota: 100MB}}\n"
            f"fresh: {{host: '{found.address}'}}\n")
        yield found


def autotune(
    board: Board, *words: str, cwd: Path | None = None, lock: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**studies.environment(), **board.environment()}
    environment.pop("XDG_CONFIG_HOME", None)
    environment["PYTHONPATH"] = studies.environment()["PYTHONPATH"]
    if lock:
        environment[VARIABLE] = str(lock)
    return subprocess.run([sys.executable, "-m", "autotune", *words], capture_output=True, text=True, timeout=400,
                          env=environment, cwd=cwd)


@pytest.fixture(scope="module")
def study(board: Board, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("study")
    target = {"host": "bench", "provider": "cpu", "threads": 1,
              "workload": {"prompt_tokens": 12, "new_tokens": 3, "samples": 6}}
    path = studies.write_study(folder, target=target, budget={"adapters": 1},
                               certificate={"finalists": 1, "time": "5s"},
                               constraints=["accuracy >= 0.05", "size_mb <= 40"])
    board.wire.cut_at = board.wire.sent + 800_000  # amid the study
    return folder / "run", autotune(board, "run", str(path), "--out", str(folder / "run"), "--store",
                                    str(folder / "store"), cwd=folder)


def test_a_study_is_measured_and_certified_on_the_device(study: tuple[Path, Any]) -> None:
    out, done = study
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Measuring on bench: " in done.stdout
    found = studies.results(out)
    jsonschema.validate(found, schema())
    assert found["certificate"]["verdict"] == "PASS"
    assert found["certificate"]["looks"][-1]["timing"]["probe"]["host"] == "bench"
    device = found["environment"]["device"]
    assert device["host"] == "bench"
    assert device["libraries"]["onnxruntime-genai"]
    assert {"board", "cores", "memory_gb", "governor", "architecture"} <= set(device)


def test_a_connection_that_was_cut_was_made_again(study: tuple[Path, Any]) -> None:
    assert study[1].stdout.count("trying again in 2 s") == 1
    assert {trial["state"] for trial in studies.results(study[0])["trials"]} <= {"COMPLETE", "PRUNED"}


def test_every_measurement_of_it_came_from_there(study: tuple[Path, Any]) -> None:
    measured = list((study[0].parent / "store").glob("*/*/measurement.json"))
    assert len(measured) >= 4
    assert {json.loads(file.read_text())["probe"]["facts"]["host"] for file in measured} == {"bench"}


def test_no_rows_and_no_study_are_on_the_device(study: tuple[Path, Any], board: Board) -> None:
    assert study[1].returncode == 0
    tops = {name.split("/")[0] for name in board.files()}
    assert tops == {"artifacts", "code", "lock"}
    text = b"".join(path.read_bytes() for path in (board.root / "artifacts").rglob("*.json"))
    assert b"The tone is" not in text


def test_the_same_study_again_measures_nothing_but_its_certificate(study: tuple[Path, Any], board: Board) -> None:
    out = study[0]
    with MachineLock(out.parent / "lock").working():  # as training does: measuring elsewhere need not wait for it
        again = autotune(board, "run", str(out.parent / "study.yaml"), "--out", str(out.parent / "again"), "--store",
                         str(out.parent / "store"), cwd=out.parent, lock=out.parent / "lock")
    assert again.returncode == 0, again.stderr
    assert studies.results(out.parent / "again")["cost"]["probes"] <= 3


def test_show_says_what_is_there(board: Board) -> None:
    done = autotune(board, "device", "show", "bench", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"]
    assert told["facts"]["lasting"]["cores"] >= 1
    assert "A study can measure there." in autotune(board, "device", "show", "bench").stdout


def test_show_of_a_device_that_was_not_set_up_says_how(board: Board) -> None:
    done = autotune(board, "device", "show", "fresh")
    assert done.returncode == 1
    assert "autotune device setup fresh" in done.stderr
    assert "Traceback" not in done.stderr


def test_list_and_a_name_that_is_not_there(board: Board) -> None:
    told = json.loads(autotune(board, "device", "list", "--json").stdout)
    assert [device["name"] for device in told["devices"]] == ["bench", "fresh"]
    done = autotune(board, "device", "show", "bensh")
    assert done.returncode == 2
    assert "did you mean 'bench'?" in done.stderr


def test_bench_times_an_artifact(board: Board) -> None:
    done = autotune(board, "device", "bench", "bench", "--artifact", str(artifacts.artifact()), "--samples", "5",
                    "--prompt-tokens", "8", "--new-tokens", "4", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["values"]["latency_ms.p50"]["value"] > 0
    assert told["facts"]["host"] == "bench"


def test_bench_of_a_folder_that_is_no_artifact(board: Board, tmp_path: Path) -> None:
    done = autotune(board, "device", "bench", "bench", "--artifact", str(tmp_path))
    assert done.returncode == 2
    assert "no genai_config.json" in done.stderr


@pytest.mark.parametrize(("host", "words"), [
    ("pi@board", "'pi@board'; accepted: ssh://USER@HOST:PORT"),
    ("ssh://pi:secret@board", "a password in the address: use a key"),
    ("nowhere", "'nowhere'"),
])
def test_a_study_with_a_wrong_host_is_told_before_any_work(
    board: Board, tmp_path: Path, host: str, words: str
) -> None:
    target = {**studies.study()["target"], "host": host}
    done = autotune(board, "run", str(studies.write_study(tmp_path, target=target)), "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert f"target.host: {words}" in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_a_python_without_a_device_is_refused(board: Board, tmp_path: Path) -> None:
    target = {**studies.study()["target"], "python": "/usr/bin/python3"}
    done = autotune(board, "run", str(studies.write_study(tmp_path, target=target)))
    assert done.returncode == 2
    assert "target.python: given for this machine" in done.stderr
