"""One lock for the whole machine: shared for work, exclusive for measuring latency.

A measurement waits for the work of every process to end and holds new work off. It takes a gate first, through
which work must pass: processes that work stage after stage cannot keep one that wants to measure waiting for ever.
The locks are the kernel's (``flock``): the death of a holder, however sudden, frees them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from filelock import FileLock, Timeout

from autotune.errors import StudyError

VARIABLE = "AUTOTUNE_MACHINE_LOCK"
_SAY_AFTER_S = 0.5
_POLL_S = 0.03
#: One who measures again and again leaves a gap this long, in which those who poll get their turn.
_COURTESY_S = 4 * _POLL_S
_PID_BYTES = 12
_SLOTS = 16

Mode = Literal["working", "measuring"]
#: What this thread holds, by path.
_mine = threading.local()
_measured_at: dict[Path, float] = {}


class MachineLock:
    """Take it last, inside what a store's lock guards and never around it: one who works and waits for an entry whose
    maker waits to measure would wait for ever.

    Held per thread. A thread that holds either side may enter ``working`` again, at no effect; one that measures
    may enter ``measuring`` again. Child processes inherit nothing: neither a hold nor the right to enter freely.

    ``path`` is ``$AUTOTUNE_MACHINE_LOCK``, or fixed per machine. ``on_wait`` is given one sentence when a wait gets
    longer than half a second. Entering raises StudyError when the lock's file cannot be used.
    """

    def __init__(self, path: Path | None = None, on_wait: Callable[[str], None] | None = None) -> None:
        self._path = (path or default_path(os.environ)).absolute()
        self._on_wait = on_wait

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work of any kind: any number of processes at once, none while one measures."""
        if self._mode() is not None:
            yield
            return
        with self._locks() as (gate, lock):
            self._wait(lambda: _both(gate, lock),
                       lambda: f"Waiting for a latency measurement on this machine to end{_who(gate)}.")
            gate.release()
            with self._as("working"):
                yield

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """A measurement of latency: alone on this machine.

        Raises:
            RuntimeError: this thread holds ``working``; it would wait for itself.
        """
        if self._mode() == "measuring":
            yield
            return
        if self._mode() == "working":
            raise RuntimeError("a thread cannot measure while it works")
        time.sleep(max(0.0, _measured_at.get(self._path, 0.0) + _COURTESY_S - time.monotonic()))
        with self._locks() as (gate, lock):
            self._wait(lambda: gate.attempt(shared=False),
                       lambda: f"Waiting for another latency measurement on this machine to end{_who(gate)}.")
            self._wait(lambda: lock.attempt(shared=False),
                       lambda: f"Waiting for other work on this machine to end, to measure latency{_who(lock)}.")
            try:
                with self._as("measuring"):
                    yield
            finally:
                _measured_at[self._path] = time.monotonic()

    def _mode(self) -> Mode | None:
        return _held().get(self._path)

    @contextmanager
    def _as(self, mode: Mode) -> Iterator[None]:
        _held()[self._path] = mode
        try:
            yield
        finally:
            _held().pop(self._path, None)

    @contextmanager
    def _locks(self) -> Iterator[tuple[_Lock, _Lock]]:
        """Gate and lock, neither taken; whatever happens, both are let go. The lock first: it needs the gate."""
        at_gate = self._path.with_name(f"{self._path.name}.gate")
        gate: _Lock = _Slots(at_gate, 1) if sys.platform == "win32" else _Flock(at_gate)
        lock: _Lock = _Slots(self._path, _SLOTS) if sys.platform == "win32" else _Flock(self._path)
        try:
            yield gate, lock
        finally:
            lock.release()
            gate.release()

    def _wait(self, attempt: Callable[[], bool], sentence: Callable[[], str]) -> None:
        """Polled, so that a Ctrl-C ends the wait at once and someone can be told why nothing happens."""
        since, said = time.monotonic(), False
        try:
            while not attempt():
                if not said and self._on_wait and time.monotonic() - since > _SAY_AFTER_S:
                    said = True
                    self._on_wait(sentence())
                time.sleep(_POLL_S)
        except OSError as error:
            raise StudyError(f"{self._path}: {error.strerror or error}; the machine's lock must be a file that all may "
                             f"write; {VARIABLE} names another") from error


def default_path(environment: Mapping[str, str]) -> Path:
    """The same for every process and user of a machine; so not under $TMPDIR, which differs."""
    if environment.get(VARIABLE):
        return Path(environment[VARIABLE]).expanduser().resolve()
    folder = environment.get("PROGRAMDATA", r"C:\ProgramData") if sys.platform == "win32" else "/tmp"
    return Path(folder) / "autotune.machine-lock"


class _Lock(Protocol):
    """Stays whole under a Ctrl-C at any moment: what an attempt took, ``release`` lets go."""

    def attempt(self, shared: bool) -> bool: ...

    def release(self) -> None: ...

    def holder(self) -> int | None: ...


def _both(gate: _Lock, lock: _Lock) -> bool:
    if gate.attempt(shared=True) and lock.attempt(shared=True):
        return True
    gate.release()
    return False


def _who(lock: _Lock) -> str:
    pid = lock.holder()
    return "" if pid is None else f" (process {pid})"


def _held() -> dict[Path, Mode]:
    if not hasattr(_mine, "held"):
        _mine.held = {}
    found: dict[Path, Mode] = _mine.held
    return found


if sys.platform != "win32":
    import fcntl

    #: Open files of locks: a forked child closes its copies, or the lock would outlive its holder.
    _open_locks: set[_Flock] = set()

    class _Flock:
        """A lock file, in which the last to take it leaves its pid."""

        def __init__(self, path: Path) -> None:
            self._path = path
            self._file = -1

        def attempt(self, shared: bool) -> bool:
            try:
                _open_locks.add(self)
                self._file = _open_for_all(self._path)
                fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                taken = _is_still(self._path, self._file)
            except BlockingIOError:
                taken = False
            except BaseException:
                self.release()
                raise
            if taken:
                self._sign()
            else:
                self.release()
            return taken

        def release(self) -> None:
            _open_locks.discard(self)
            if self._file >= 0:
                with contextlib.suppress(OSError):  # a file of another user that we may only read
                    if _pid_in(self._file) == os.getpid():
                        os.pwrite(self._file, b" " * _PID_BYTES, 0)
                file, self._file = self._file, -1
                fcntl.flock(file, fcntl.LOCK_UN)  # for a copy that a child may have for the blink before its exec
                os.close(file)

        def forget(self) -> None:
            """In a forked child: the copy goes, the parent's hold stays."""
            if self._file >= 0:
                file, self._file = self._file, -1
                os.close(file)

        def holder(self) -> int | None:
            import psutil

            try:
                file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                return None
            try:
                pid = _pid_in(file)
            finally:
                os.close(file)
            return pid if pid and pid != os.getpid() and psutil.pid_exists(pid) else None

        def _sign(self) -> None:
            with contextlib.suppress(OSError):
                os.pwrite(self._file, f"{os.getpid():<{_PID_BYTES - 1}}\n".encode(), 0)
                os.utime(self._file)  # or what clears old files out of /tmp would take it for one

    def _pid_in(file: int) -> int | None:
        text = os.pread(file, _PID_BYTES, 0).strip()
        return int(text) if text.isdigit() else None

    def _is_still(path: Path, file: int) -> bool:
        """Whether the file is the one at the path: a lock on a deleted file keeps nobody out."""
        try:
            return os.path.samestat(os.fstat(file), path.stat())
        except FileNotFoundError:
            return False

    def _open_for_all(path: Path) -> int:
        """The file, made world-writable if it is not there. Opened without O_CREAT: in a sticky folder Linux
        refuses that for another user's file (fs.protected_regular)."""
        flags = os.O_NOFOLLOW | os.O_NONBLOCK
        for _ in range(100):
            try:
                return os.open(path, os.O_RDWR | flags)
            except PermissionError:
                return os.open(path, os.O_RDONLY | flags)  # enough for flock
            except FileNotFoundError:
                _create_for_all(path)
        raise FileNotFoundError(2, "is removed as soon as it is made", str(path))

    def _create_for_all(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        file, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            os.fchmod(file, 0o666)  # whatever the umask is; before it has its name
            with contextlib.suppress(FileExistsError):
                os.link(beside, path)
        finally:
            os.close(file)
            Path(beside).unlink()

    def _in_child() -> None:
        for lock in list(_open_locks):
            lock.forget()
        _open_locks.clear()
        _mine.__dict__.clear()

    os.register_at_fork(after_in_child=_in_child)


class _Slots:
    """For Windows, whose locks are exclusive: to share is to hold one of several files, to exclude to hold all."""

    def __init__(self, path: Path, count: int) -> None:
        self._files = [FileLock(path.with_name(f"{path.name}.{n}")) for n in range(count)]

    def attempt(self, shared: bool) -> bool:
        """Files taken by an attempt to hold all stay taken for the next one, behind the gate."""
        for file in self._files:
            try:
                if not file.is_locked:
                    file.acquire(timeout=0)
            except Timeout:
                if not shared:
                    return False
            else:
                if shared:
                    return True
        return not shared

    def release(self) -> None:
        for file in self._files:
            file.release(force=True)

    def holder(self) -> int | None:
        return None
