"""Measuring over SSH against a real sshd: what arrives there, what is said and made anew when something breaks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from autotune.errors import DeviceError, ProbeError
from autotune.targets.local import run_probe
from autotune.targets.ssh import Ssh, open_ssh
from autotune.targets.transfer import describe
from tests import artifacts, boards
from tests.boards import Board
from tests.test_probe import CHOICE, ENDLESS, GENERATE, LATENCY, for_artifact

pytest_plugins = ["tests.boards"]  # the fixtures `shared` and `board`

PAUSES = (0.1, 0.2, 0.4, 0.8)
MB = 1_000_000


class Heard:
    """What the user is told, and progress as it comes; ``at`` calls a function at the first progress of a note."""

    def __init__(self, note: str = "", at: Any = None) -> None:
        self.said: list[str] = []
        self.notes: list[str] = []
        self._note, self._at = note, at

    def say(self, text: str) -> None:
        self.said.append(text)

    def report(self, done: float, total: float, note: str = "") -> None:
        self.notes.append(note)
        if self._at and note.startswith(self._note):
            at, self._at = self._at, None
            at()


def opened(board: Board, heard: Heard | None = None, **changes: Any) -> Ssh:
    return open_ssh(board.place(**changes), "cpu", (heard or Heard()).say, PAUSES)


def padded(folder: Path, megabytes: int, seed: int = 0) -> Path:
    """The tiny artifact beside a file that takes its time to be sent."""
    shutil.copytree(artifacts.artifact(), folder)
    (folder / "padding.bin").write_bytes(os.urandom(megabytes * MB))
    return folder


def measure(device: Ssh, tmp_path: Path, *tasks: dict[str, Any], heard: Heard | None = None, **changed: Any) -> Any:
    return device.measure(for_artifact(*(tasks or (CHOICE,)), **changed), workdir=tmp_path,
                          report=(heard or Heard()).report)


def agents(board: Board) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"])
            if "objectives.device.agent" in (p.info["cmdline"] or []) and str(board.root) in p.info["cmdline"]]


def test_the_same_program_gives_the_same_answers(board: Board, tmp_path: Path) -> None:
    heard = Heard()
    found = measure(opened(board), tmp_path, LATENCY, CHOICE, GENERATE, heard=heard)
    here = run_probe(for_artifact(CHOICE, GENERATE), workdir=tmp_path)
    assert found.predictions == here.predictions
    assert found.generations == here.generations
    assert len(found.samples) >= 3
    assert found.facts["host"] == "board"
    assert len(found.facts["temperature_c"]) == 2
    assert "scoring" in heard.notes
    assert any(note.startswith("sending, ") for note in heard.notes)


def test_nothing_but_the_package_and_the_artifact_is_on_the_device(board: Board, tmp_path: Path) -> None:
    beside = {**LATENCY, "reference": {"artifact": str(artifacts.artifact("int4")), "min_generator_length": 0}}
    measure(opened(board), tmp_path, beside)
    sent = {describe(artifacts.artifact()).name, describe(artifacts.artifact("int4")).name}
    names = {name for name in board.files() if "__pycache__" not in name}
    placed = {name.split("/")[1] for name in names if name.startswith("artifacts/") and name.count("/") > 1}
    assert placed == sent
    records = {f"artifacts/{name}.json" for name in sent}
    rest = {name for name in names if not name.startswith("artifacts/")} - {"lock"}
    assert all(name.startswith("code/") and name.split("/")[2] == "objectives" for name in rest), rest
    assert {name for name in names if name.startswith("artifacts/") and name.count("/") == 1} == records
    assert {path.name for path in board.home.iterdir()} == {".cache"}


def test_what_is_there_is_not_sent_again(board: Board, tmp_path: Path) -> None:
    device = opened(board)
    artifact = padded(tmp_path / "one", 4)
    measure(device, tmp_path, artifact=str(artifact))
    before = board.wire.sent
    heard = Heard()
    measure(device, tmp_path, artifact=str(artifact), heard=heard)
    assert board.wire.sent - before < MB
    assert not any(note.startswith("sending") for note in heard.notes)


def test_a_connection_cut_while_sending_is_made_again_and_sending_goes_on(board: Board, tmp_path: Path) -> None:
    heard = Heard()
    device, artifact = opened(board, heard), padded(tmp_path / "cut", 24)
    began = board.wire.sent
    board.wire.cut_at = began + 16 * MB
    assert len(measure(device, tmp_path, artifact=str(artifact), heard=heard).predictions) == 2
    assert [text for text in heard.said if "board: " in text and "trying again in 0 s" in text]
    assert board.wire.sent - began < 38 * MB  # 24 MB from the start again would be 40
    assert not list((board.root / "incoming").iterdir())


def test_a_connection_cut_while_measuring_leaves_no_number_and_is_made_again(board: Board, tmp_path: Path) -> None:
    heard = Heard("timing", board.wire.cut)
    found = measure(opened(board, heard), tmp_path, {**LATENCY, "samples": 60}, heard=heard)
    assert len(found.samples) >= 60  # all of them of the second try: rows and blocks given twice are refused
    assert [text for text in heard.said if "trying again" in text]


def test_the_device_is_free_again_after_a_cut(board: Board, tmp_path: Path) -> None:
    heard = Heard("timing", board.wire.cut)
    measure(opened(board, heard), tmp_path, {**LATENCY, "samples": 60}, heard=heard)
    assert not [text for text in heard.said if "waiting" in text]
    wait_until(lambda: not agents(board))


def test_a_device_that_stays_away_ends_the_study_with_a_sentence(board: Board, tmp_path: Path) -> None:
    device = opened(board)
    board.trust()
    away = Ssh(boards.Board(board.folder, boards.Wire(0, port=1)).place(), {"now": {}, "lasting": device.fingerprint},
               Heard().say, (0.0, 0.1))
    with pytest.raises(DeviceError, match=r"board: connection: .*; 2 further tries within 0 minutes failed too; "
                       r"accepted: a device that can be reached; the same command goes on from here"):
        measure(away, tmp_path)


def test_an_artifact_that_brings_the_device_down_is_given_up(board: Board, tmp_path: Path) -> None:
    device, heard = opened(board), Heard()
    ended = threading.Event()

    def reboot() -> None:
        while not ended.wait(0.05):
            for agent in agents(board):
                if any("objectives.probe" in child.cmdline() for child in children(agent)):
                    kill(agent)

    thread = threading.Thread(target=reboot)
    thread.start()
    try:
        with pytest.raises(ProbeError, match=r"board: lost 3 times while it measured this artifact \(.*agent on "
                           r"the device ended"):
            measure(device, tmp_path, ENDLESS, heard=heard)
    finally:
        ended.set()
        thread.join()


def test_a_probe_that_memory_ran_out_for_says_how_much_there_was(board: Board, tmp_path: Path) -> None:
    device = opened(board)

    def kill_probe() -> None:
        for agent in agents(board):
            for child in children(agent):
                child.send_signal(signal.SIGKILL)

    with pytest.raises(ProbeError, match=r"board: probe: killed by signal 9 \(out of memory\?\); it was to open "
                       r"artifacts of \d+ MB, and without them \d+ MB of [\d.]+ GB are free there"):
        measure(device, tmp_path, {**LATENCY, "samples": 10**6, "max_seconds": 60}, heard=Heard("timing", kill_probe))


def test_an_artifact_that_does_not_load_is_the_artifacts_fault(board: Board, tmp_path: Path) -> None:
    shutil.copytree(artifacts.artifact(), tmp_path / "broken")
    (tmp_path / "broken" / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(ProbeError, match="board: load: "):
        measure(opened(board), tmp_path, artifact=str(tmp_path / "broken"))


def test_the_oldest_artifact_goes_for_a_new_one(board: Board, tmp_path: Path) -> None:
    heard = Heard()
    device = opened(board, heard, quota=10 * MB)
    first, second = padded(tmp_path / "one", 6), padded(tmp_path / "two", 6)
    measure(device, tmp_path, artifact=str(first))
    measure(device, tmp_path, artifact=str(second))
    assert [p.name for p in (board.root / "artifacts").iterdir() if p.is_dir()] == [describe(second).name]
    assert [text for text in heard.said if "removed an older artifact" in text]


def test_an_artifact_beyond_the_quota_is_refused_before_it_is_sent(board: Board, tmp_path: Path) -> None:
    device, artifact = opened(board, quota=5 * MB), padded(tmp_path / "large", 8)
    before = board.wire.sent
    with pytest.raises(ProbeError, match=r"board: disk: artifacts of \d MB are more than the quota of 5 MB; "
                       "accepted: a smaller artifact, or a larger quota in the devices file"):
        measure(device, tmp_path, artifact=str(artifact))
    assert board.wire.sent - before < MB


def test_a_disk_that_is_full_fails_the_artifact_and_not_the_study(board: Board, tmp_path: Path) -> None:
    device, artifact = opened(board), padded(tmp_path / "one", 2)
    incoming = board.root / "incoming"
    incoming.mkdir(exist_ok=True)
    (incoming / describe(artifact).files["padding.bin"]["sha256"]).symlink_to("/dev/full")
    with pytest.raises(ProbeError, match=r"board: disk: writing failed \(.*\) with \d+ MB free; accepted: room for the "
                       "artifact"):
        measure(device, tmp_path, artifact=str(artifact))


def test_two_do_not_measure_at_once(board: Board, tmp_path: Path) -> None:
    first, second = opened(board), Heard()
    both = opened(board, second)
    began, results = threading.Event(), []
    long = {**LATENCY, "samples": 150, "max_seconds": 60}

    def one() -> None:
        results.append(measure(first, tmp_path, long, heard=Heard("timing", began.set)))
        results.append("first")

    thread = threading.Thread(target=one)
    thread.start()
    assert began.wait(60)
    measure(both, tmp_path)
    results.append("second")
    thread.join()
    assert results[1:] == ["first", "second"] or results[-1] == "second"
    assert [text for text in second.said if "board: waiting for another measurement there by " in text]


def test_who_ends_a_measurement_does_not_wait_for_it(board: Board, tmp_path: Path) -> None:
    device = opened(board)
    long = {**LATENCY, "samples": 10**6, "max_seconds": 300}
    ended: list[BaseException] = []

    def one(heard: Heard) -> None:
        try:
            measure(device, tmp_path, long, heard=heard)
        except BaseException as error:  # noqa: BLE001 (a cancelled one is no Exception)
            ended.append(error)

    for heard in (Heard("timing", device.stop), Heard()):
        thread = threading.Thread(target=one, args=(heard,))
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
    assert len(ended) == 2
    wait_until(lambda: not agents(board))


def test_a_python_without_the_libraries(board: Board, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    with pytest.raises(DeviceError, match=r"board: numpy, psutil, onnxruntime, onnxruntime-genai.*: numpy is not "
                       "installed; .*accepted: .*autotune device setup board"):
        opened(board, python=str(tmp_path / "bare" / "bin" / "python"))


def test_no_python_and_an_old_one(board: Board, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"board: python: .*/venv/bin/python is not there, or is no Python; "
                       r"accepted: Python 3\.11 or newer"):
        opened(board, python=None)
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\ncase "$1" in -c) echo 3 9 2;; *) echo "unknown option -P" >&2; exit 2;; esac\n')
    old.chmod(0o755)
    with pytest.raises(DeviceError, match=r"board: python: .*/python3\.9 is Python 3\.9\.2; accepted: Python 3\.11"):
        opened(board, python=str(old))


def test_a_device_that_became_another_is_not_measured_on(board: Board, tmp_path: Path) -> None:
    device = opened(board)
    device.fingerprint = {**device.fingerprint, "governor": "powersave-before"}
    with pytest.raises(DeviceError, match="board: governor: changed while it was measured on: governor: "):
        measure(device, tmp_path)


def test_damaged_code_on_the_device_is_sent_again(board: Board, tmp_path: Path) -> None:
    device = opened(board)
    probe = next((board.root / "code").glob("*/objectives/probe.py"))
    probe.write_text("raise SystemExit('damaged')")
    assert len(measure(device, tmp_path).predictions) == 2
    assert "damaged" not in probe.read_text()


def children(agent: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in agent.children() if child.cmdline()]
    except psutil.Error:
        return []


def kill(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        process.kill()


def wait_until(true: Any) -> None:
    for _ in range(400):
        if true():
            return
        time.sleep(0.05)
    pytest.fail("it did not come to pass")
