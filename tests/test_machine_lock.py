"""The machine's lock between real processes: work together, measure alone, and nobody left holding it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from autotune.errors import StudyError
from autotune.machine_lock import MachineLock, _Slots, default_path

REPOSITORY = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are steered by signals")

#: Says each step in a line; goes on when it is told to in a line.
PROGRAM = """
import os, subprocess, sys, time
from pathlib import Path
from autotune.machine_lock import MachineLock

def say(text): print(text, flush=True)
lock = MachineLock(Path(sys.argv[1]), on_wait=say)
say("ready")
try:
    with getattr(lock, sys.argv[2])():
        say("held")
        if "fork" in sys.argv and os.fork() == 0:
            os.execvp("sleep", ["sleep", "60"]) if "exec" in sys.argv else time.sleep(60)
        if "spawn" in sys.argv:
            subprocess.Popen(["sleep", "60"])
        say("told" if not sys.stdin.readline() else "go")
except KeyboardInterrupt:
    say("interrupted")
    sys.stdin.readline()
say("done")
"""


class Holder:
    """A process that enters one side of the lock, says so, and leaves when told."""

    def __init__(self, path: Path, side: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, path, side, *options], cwd=REPOSITORY, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self.lines: list[str] = []
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()
        self.wait("ready")

    def _read(self, stream: IO[str]) -> None:
        self.lines.extend(line.strip() for line in iter(stream.readline, ""))

    def _until(self, true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not true():
            assert time.monotonic() < deadline, f"no {what!r} in {self.lines}"
            time.sleep(0.01)

    def wait(self, line: str) -> Holder:
        self._until(lambda: line in self.lines, line)
        return self

    def wait_until_it_waits(self) -> str:
        self._until(lambda: any("Waiting" in line for line in self.lines), "Waiting")
        return next(line for line in self.lines if "Waiting" in line)

    def leave(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


Start = Callable[..., Holder]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    holders: list[Holder] = []

    def begin(side: str, *options: str) -> Holder:
        holders.append(Holder(path, side, *options))
        return holders[-1]

    yield begin
    for holder in holders:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(holder.process.pid, signal.SIGKILL)
        holder.process.wait()


def test_two_processes_work_at_once(start: Start) -> None:
    first = start("working").wait("held")
    second = start("working").wait("held")
    for holder in (first, second):
        holder.leave()
        holder.wait("done")


def test_a_measurement_waits_for_work_and_keeps_new_work_off(start: Start) -> None:
    workers = [start("working").wait("held"), start("working").wait("held")]
    measurer = start("measuring")
    assert measurer.wait_until_it_waits().startswith(
        "Waiting for other work on this machine to end, to measure latency")
    late = start("working")
    late.wait_until_it_waits()
    workers[0].leave()
    workers[0].wait("done")
    assert "held" not in measurer.lines
    workers[1].leave()
    measurer.wait("held")
    assert "held" not in late.lines
    measurer.leave()
    late.wait("held")


def test_two_measurements_take_turns(start: Start) -> None:
    first = start("measuring").wait("held")
    second = start("measuring")
    said = second.wait_until_it_waits()
    assert said == f"Waiting for another latency measurement on this machine to end (process {first.process.pid})."
    assert "held" not in second.lines
    first.leave()
    second.wait("held")
    assert sum("Waiting" in line for line in second.lines) == 1


def test_who_waits_is_told_for_what_and_whom(start: Start) -> None:
    holder = start("measuring").wait("held")
    waiter = start("working")
    assert waiter.wait_until_it_waits() == (
        f"Waiting for a latency measurement on this machine to end (process {holder.process.pid}).")


@pytest.mark.parametrize("side", ["working", "measuring"])
@pytest.mark.parametrize("children", [(), ("fork",), ("fork", "exec"), ("spawn",)])
def test_a_killed_holder_holds_nothing_nor_do_its_children(start: Start, side: str, children: tuple[str, ...]) -> None:
    holder = start(side, *children).wait("held")
    if children:
        time.sleep(0.2)  # for the child to be there
    holder.kill()
    start("measuring").wait("held")


def test_killing_one_that_waits_to_measure_lets_work_go_on(start: Start) -> None:
    start("working").wait("held")
    measurer = start("measuring")
    measurer.wait_until_it_waits()
    measurer.kill()
    start("working").wait("held")


@pytest.mark.parametrize(("holds", "waits"), [("working", "measuring"), ("measuring", "working")])
def test_an_interrupted_wait_leaves_nothing_held(start: Start, holds: str, waits: str) -> None:
    holder = start(holds).wait("held")
    waiter = start(waits)
    waiter.wait_until_it_waits()
    os.kill(waiter.process.pid, signal.SIGINT)
    waiter.wait("interrupted")  # and it lives on
    if holds == "measuring":
        holder.leave()
        holder.wait("done")
    start("working").wait("held")
    assert waiter.process.poll() is None


def _loop(path: str, side: str, log: str, stop: str) -> None:
    lock = MachineLock(Path(path))
    with open(log, "a", buffering=1) as file:  # noqa: PTH123 (line by line, from several processes)
        while not Path(stop).exists():
            with getattr(lock, side)():
                file.write(f"{side} {os.getpid()} in\n")
                time.sleep(0.005)
                file.write(f"{side} {os.getpid()} out\n")


@pytest.mark.parametrize(("busy", "count", "other"), [("working", 2, "measuring"), ("measuring", 1, "working")])
def test_back_to_back_holders_starve_nobody(path: Path, tmp_path: Path, busy: str, count: int, other: str) -> None:
    context = multiprocessing.get_context("fork")
    log, stop = tmp_path / "log", tmp_path / "stop"
    loops = [context.Process(target=_loop, args=(str(path), busy, str(log), str(stop)))
             for _ in range(count)]
    for process in loops:
        process.start()
    try:
        lock = MachineLock(path)
        for _ in range(5):
            with getattr(lock, other)(), log.open("a") as file:
                file.write(f"{other} {os.getpid()} in\n")
                file.flush()
                time.sleep(0.02)
                file.write(f"{other} {os.getpid()} out\n")
    finally:
        stop.touch()
        for process in loops:
            process.join(30)
    if busy == "measuring":  # each of the five turns came soon, not by the luck of a poll
        assert log.read_text().count("measuring") / 2 < 60
    inside: dict[str, str] = {}
    for line in log.read_text().splitlines():
        side, pid, step = line.split()
        if step == "out":
            del inside[pid]
            continue
        inside[pid] = side
        assert "measuring" not in inside.values() or len(inside) == 1, line


def test_what_may_be_nested(path: Path, start: Start) -> None:
    lock, other = MachineLock(path), MachineLock(path)
    with lock.measuring():
        with other.working(), lock.working(), other.measuring():
            pass
        waiter = start("working")
        waiter.wait_until_it_waits()
        assert "held" not in waiter.lines
    waiter.wait("held").leave()
    with lock.working():
        measurer = start("measuring")
        measurer.wait_until_it_waits()
        with other.working():  # passes although one waits to measure
            pass
        with pytest.raises(RuntimeError, match="while it works"), lock.measuring():
            pass
        assert "held" not in measurer.lines
    measurer.wait("held")


def test_threads_of_a_process_count_each(path: Path) -> None:
    lock, said = MachineLock(path), threading.Event()
    entered = threading.Event()

    def measure() -> None:
        with MachineLock(path, lambda _: said.set()).measuring():
            entered.set()

    thread = threading.Thread(target=measure)
    with lock.working():
        thread.start()
        assert said.wait(30)
        assert not entered.is_set()
    thread.join(30)
    assert entered.is_set()


def test_a_forked_child_does_not_hold_nor_free_its_parents_lock(path: Path, start: Start) -> None:
    lock = MachineLock(path)
    with lock.measuring():
        child = os.fork()
        if child == 0:
            lock_is_mine = lock._mode() is not None
            os._exit(lock_is_mine)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        waiter = start("working")
        waiter.wait_until_it_waits()
        assert "held" not in waiter.lines
    waiter.wait("held")


def test_a_deleted_lock_file_is_made_anew(path: Path, start: Start) -> None:
    with MachineLock(path).working():
        pass
    for file in path.parent.glob("lock*"):
        file.unlink()
    start("measuring").wait("held")
    start("working").wait_until_it_waits()


def test_all_users_may_use_the_file(path: Path) -> None:
    before = os.umask(0o077)
    try:
        with MachineLock(path).measuring():
            pass
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == {"lock": 0o666, "lock.gate": 0o666}


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="becomes another user")
def test_another_users_file_in_a_sticky_folder_works() -> None:
    folder = Path("/tmp") / f"autotune-test-{os.getpid()}"
    folder.mkdir()
    folder.chmod(0o1777)
    try:
        for user in (65534, 65533):
            for mode in (0o666, 0o644):  # one who may only read may still lock
                child = os.fork()
                if child == 0:
                    try:
                        os.setuid(user)
                        with MachineLock(folder / "lock").measuring():
                            os._exit(0)
                    finally:
                        os._exit(1)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, (user, mode)
                for file in folder.iterdir():
                    file.chmod(mode)
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def test_a_file_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    lock = MachineLock(tmp_path / "lock")
    with pytest.raises(StudyError, match="AUTOTUNE_MACHINE_LOCK names another"), lock.working():
        pass


def test_the_default_is_one_for_the_machine(tmp_path: Path) -> None:
    assert default_path({"TMPDIR": str(tmp_path)}) == Path("/tmp/autotune.machine-lock")
    assert default_path({"AUTOTUNE_MACHINE_LOCK": str(tmp_path / "x")}) == (tmp_path / "x").resolve()


def test_where_locks_are_exclusive_slots_make_a_shared_one(path: Path) -> None:
    first, second, third = (_Slots(path, 2) for _ in range(3))
    assert first.attempt(shared=True)
    assert second.attempt(shared=True)
    assert not third.attempt(shared=True)
    assert not third.attempt(shared=False)
    first.release()
    assert not third.attempt(shared=False)
    second.release()
    assert third.attempt(shared=False)
    assert not first.attempt(shared=True)
    third.release()
    assert first.attempt(shared=True)
    first.release()
