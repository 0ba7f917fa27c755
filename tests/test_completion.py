"""The shell's completion as the shell runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotune.commands.completion import complete_data, complete_policy, complete_run, complete_study
from tests import finished_runs, studies

PROGRAM = "import sys; sys.argv[0] = 'autotune'; from autotune.cli import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("completion")
    finished_runs.write(found / "runs/tone")
    (found / "runs/half").mkdir()
    (found / "tone").mkdir()
    (found / "tone/study.yaml").write_text("name: tone\nmodel: m\ndata:\n  train: a\nobjectives: [accuracy]\n")
    (found / "compose.yaml").write_text("services: {}\n")
    (found / "tone/train rows.jsonl").touch()
    (found / ".hidden").mkdir()
    (found / ".hidden/rows.csv").touch()
    return found


def complete(folder: Path, *words: str) -> list[str]:
    """What bash is offered for the last of the words."""
    typed = " ".join(("autotune", *words))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, cwd=folder,
        env={**studies.environment(), "_AUTOTUNE_COMPLETE": "complete_bash", "COMP_WORDS": typed,
             "COMP_CWORD": str(len(words))})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("words", "offered"), [
    (("run", ""), ["tone/study.yaml"]),
    (("run", "tone/st"), ["tone/study.yaml"]),
    (("run", "study.yaml", "--out", "ru"), ["runs/tone"]),
    (("select", "ru"), ["runs/tone"]),
    (("select", "runs/tone", "--policy", "sm"), ["smallest"]),
    (("compare", "runs/tone", "ru"), ["runs/tone"]),
    (("report", "ru"), ["runs/tone"]),
    (("bundle", "ru"), ["runs/tone"]),
    (("init", "data.csv", "--task", "g"), ["generate"]),
    (("init", "tone/"), ["tone/train rows.jsonl"]),
])
def test_values_are_offered(folder: Path, words: tuple[str, ...], offered: list[str]) -> None:
    assert complete(folder, *words) == offered


def test_commands_and_options_are_offered(folder: Path) -> None:
    assert {"init", "run", "doctor", "gc"} <= set(complete(folder, ""))
    assert "--dry-run" in complete(folder, "run", "--d")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_the_script_for_a_shell_calls_us_back(folder: Path, shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, cwd=folder,
        env={**studies.environment(), "_AUTOTUNE_COMPLETE": f"source_{shell}"})
    assert done.returncode == 0, done.stderr
    assert "_AUTOTUNE_COMPLETE" in done.stdout
    assert f"complete_{shell}" in done.stdout


def test_the_script_for_the_shell_that_asks(folder: Path) -> None:
    code = f"{sys.executable} -c \"{PROGRAM}\" --show-completion; exit $?"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60, cwd=folder,
                          env=studies.environment())
    assert done.returncode == 0, done.stderr
    assert "complete -o default -F _autotune_completion autotune" in done.stdout


def test_paths_are_offered_as_they_were_begun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "runs")
    assert complete_run("") == ["tone"]
    assert complete_run("../ru") == ["../runs/tone"]
    assert complete_run(f"{folder}/runs/") == [f"{folder}/runs/tone"]
    assert complete_study("") == []  # a run's own copy is not there to be run
    monkeypatch.setenv("HOME", str(folder))
    assert complete_data("~/tone/t") == ["~/tone/train rows.jsonl"]


def test_places_that_cannot_be_read_offer_nothing(folder: Path) -> None:
    assert complete_run(f"{folder}/nowhere/x") == []
    assert complete_data(os.devnull + "/") == []


def test_policies() -> None:
    assert complete_policy("") == ["most-accurate", "fastest", "smallest", "knee"]
    assert complete_policy("k") == ["knee"]
