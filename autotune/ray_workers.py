"""Runs stages in the processes of a Ray cluster, several at a time. Ray places them, and tries again what was killed.

Stages read and write files by their paths: the store, the run folder and the study's own files are on a file system
that all machines see.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from autotune.errors import AutotuneError, StageError
from autotune.machine_lock import MachineLock
from autotune.pipeline.progress import Report, silent
from autotune.ray_cluster import Needs, connect, import_ray, ray_options, require_alike, with_defaults
from autotune.workers import ENVIRONMENT, Kind, call, divert, forward

T = TypeVar("T")
#: How often Ray runs a stage again whose process was killed. After that the stage has failed, and its trial with it.
RETRIES = 2
_POLL_S = 0.2


class DriversLock:
    """The machine's lock for a process whose stages run elsewhere: held while it works itself, and handed over while
    it waits for a worker, which takes the lock of the machine that it is on."""

    def __init__(self, lock: MachineLock) -> None:
        self._lock = lock
        self._own = threading.local()

    @contextmanager
    def working(self) -> Iterator[None]:
        """As MachineLock's; entered again by a thread that holds it, it has no effect."""
        if self._held():
            yield
            return
        with ExitStack() as held:
            held.enter_context(self._lock.working())
            self._own.held = held
            try:
                yield
            finally:
                self._own.held = None

    def measuring(self) -> Any:
        """Who measures is a worker, and it takes the lock; we work."""
        return self.working()

    @contextmanager
    def handed_over(self) -> Iterator[None]:
        """Let go of it for this block, and take it again when the block has come to its end."""
        held = self._held()
        if held:
            held.close()
        yield
        if held:
            held.enter_context(self._lock.working())

    def _held(self) -> ExitStack | None:
        held: ExitStack | None = getattr(self._own, "held", None)
        return held


class RayWorker:
    """``count`` stages at a time in a Ray cluster, from as many threads; the same to its callers as a ``Worker``."""

    here = False

    def __init__(
        self, log: Path, lock: DriversLock, folders: Sequence[Path], *, address: str | None, count: int,
        resources: Needs, measures: bool = True,
    ) -> None:
        """``folders`` must be seen by all machines. ``resources`` are those that a kind of stage needs of a node.
        ``measures``: latency is measured in the cluster, not on a device elsewhere.

        Raises:
            ConfigError: Ray is not installed, no node offers what is needed, or a node is not like this machine.
            StudyError: there is no cluster at ``address``, or none can be started here (``address`` None).
        """
        self.count = count
        self._log, self._lock = log.resolve(), lock
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._numbers = itertools.count()
        self._closed, self._waiting, self._ended = threading.Event(), 0, threading.Condition()
        needs = with_defaults(resources, address, count, os.cpu_count() or 1, measures)
        connect(address, count, needs)
        if address:
            require_alike(needs, folders)
        self._ray = import_ray()
        self._options = {kind: {**ray_options(wanted), "name": f"autotune:{kind}", "max_retries": RETRIES}
                         for kind, wanted in needs.items()}
        self._task = self._ray.remote(_stage)

    def run(
        self, function: Callable[..., T], *args: Any, error: type[StageError] = StageError,
        on_progress: Report = silent, kind: Kind = "build", outputs: Sequence[Path] = (), **kwargs: Any,
    ) -> T:
        """As ``Workers.run``; a stage whose process is killed is run again, at most ``RETRIES`` times."""
        progress = self._log.with_name(f".progress-{os.getpid()}-{next(self._numbers)}")
        asked = _Asked(str(self._log), str(progress), kind, tuple(map(str, outputs)), function, args, kwargs)
        try:
            with self._lock.handed_over(), self._counted():
                came = self._wait(self._task.options(**self._options[kind]).remote(asked), progress, on_progress, error)
        finally:
            progress.unlink(missing_ok=True)
        if came.error is not None:
            raise came.error
        if came.unforeseen:
            raise error(f"{came.unforeseen} (log: {self._log})")
        return came.value  # type: ignore[no-any-return]

    def close(self, kill: bool = False) -> None:
        """Leave the cluster, or end the one that we started. What runs is ended with it in either case."""
        if not self._closed.is_set():
            self._closed.set()
            with self._ended:  # Ray does not stand being asked while it goes
                self._ended.wait_for(lambda: not self._waiting, timeout=10 * _POLL_S)
            self._ray.shutdown()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._ended:
            self._waiting += 1
        try:
            yield
        finally:
            with self._ended:
                self._waiting -= 1
                self._ended.notify_all()

    def _wait(self, pending: Any, progress: Path, on_progress: Report, error: type[StageError]) -> _Came:
        last = ""
        failures = self._ray.exceptions
        try:
            while not self._closed.is_set():
                if self._ray.wait([pending], timeout=_POLL_S)[0]:
                    found: _Came = self._ray.get(pending)
                    return found
                last = forward(progress, on_progress, last)
        except failures.OutOfMemoryError:
            raise error(f"Ray ended the worker process: its machine was out of memory (log: {self._log})") from None
        except (failures.WorkerCrashedError, failures.NodeDiedError):
            raise error(f"the worker process was killed {RETRIES + 1} times (out of memory?); its log is {self._log}"
                        ) from None
        except failures.RayError as unforeseen:
            raise error(f"{_last_line(unforeseen)} (log: {self._log})") from unforeseen
        raise error("the workers were ended")


@dataclass(frozen=True)
class _Asked:
    """A stage for a worker."""

    log: str
    progress: str
    kind: Kind
    outputs: tuple[str, ...]
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class _Came:
    """What came of it: its value, an error of ours, or the sentence of any other."""

    value: Any = None
    error: AutotuneError | None = None
    unforeseen: str = ""


def _stage(asked: _Asked) -> _Came:
    """In a worker: the stage, alone on this machine if it measures latency."""
    os.environ.update(ENVIRONMENT)
    divert(asked.log)
    for folder in map(Path, asked.outputs):  # what a try left that was killed
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    lock = MachineLock()
    try:
        with lock.measuring() if asked.kind == "probe" else lock.working():
            return _Came(call(asked.progress, asked.function, asked.args, asked.kwargs))
    except AutotuneError as error:
        return _Came(error=error)
    except Exception as error:  # noqa: BLE001 (told to the driver, which says where and goes on)
        return _Came(unforeseen=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:300] if lines else 'no reason given'}"
