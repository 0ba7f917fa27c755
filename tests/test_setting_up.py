"""`autotune device setup`: what it makes on a device, and what it says where that cannot be done."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from autotune.errors import DeviceError
from autotune.targets.setting_up import requirements, set_up
from autotune.targets.ssh import open_ssh
from tests.boards import Board
from tests.test_probe import CHOICE, for_artifact

pytest_plugins = ["tests.boards"]  # the fixtures `shared` and `board`


def packages(board: Board) -> set[str]:
    """The names of what is installed in the environment that was made."""
    python = board.root / "venv" / "bin" / "python"
    code = "from importlib import metadata as m; print(*(d.metadata['Name'].lower() for d in m.distributions()))"
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_environment_has_what_the_probe_needs_and_measures(board: Board, tmp_path: Path) -> None:
    said: list[str] = []
    try:
        found = set_up(board.place(python=None), sys.executable, "cpu", said.append)
    except DeviceError as error:
        if "No matching distribution" in str(error) or "connection" in str(error).lower():
            pytest.skip(f"needs a package index: {error}")
        raise
    assert {check.name: check.state for check in found if check.state == "problem"} == {}
    installed = packages(board)
    assert {"numpy", "psutil", "onnxruntime", "onnxruntime-genai"} <= installed
    assert not installed & {"torch", "transformers", "optuna", "peft", "autotune-edge"}
    device = open_ssh(board.place(python=None), "cpu", said.append)
    assert len(device.measure(for_artifact(CHOICE), workdir=tmp_path).predictions) == 2


def test_what_pip_said_last_is_told(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.targets.setting_up.requirements", lambda provider: ["no-such-package-of-ours==9"])
    with pytest.raises(DeviceError, match=r"board: setup: -m pip ended with exit code 1; it last said: .*"
                       r"no-such-package-of-ours.*; accepted: a package index that the device reaches"):
        set_up(board.place(python=None), sys.executable, "cpu", lambda text: None)


def test_a_python_that_is_not_there(board: Board) -> None:
    with pytest.raises(DeviceError, match=r"board: python: python3\.99 is not there, or is no Python"):
        set_up(board.place(python=None), "python3.99", "cpu", lambda text: None)


def test_requirements_are_those_of_the_provider() -> None:
    assert [re.split("[<>=]", text)[0] for text in requirements("cuda")] == [
        "numpy", "psutil", "onnxruntime-gpu", "onnxruntime-genai-cuda"]
