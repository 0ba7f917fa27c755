"""Runs a stage in a process of its own: a crash there, or noise from a library, is not ours.

The worker lives on between stages, so that imports are paid once. It dies with its parent, even when
that is killed outright.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from loky import process_executor
from loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

from autotune.errors import AutotuneError, StageError
from autotune.pipeline.progress import Report, silent

T = TypeVar("T")
_POLL_S = 0.2
#: Waiting threads spin for a moment, then sleep. libgomp's default of a longer spin makes a training step ten
#: times slower when another process wants the cores; sleeping at once (OMP_WAIT_POLICY=PASSIVE) costs a
#: fifth to a half of the speed when none does.
ENVIRONMENT = {"GOMP_SPINCOUNT": "20000", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}


#: What a stage does, which decides what it needs: makes something, trains adapters, has rows answered, times requests.
Kind = Literal["build", "train", "answers", "probe"]


class Workers(Protocol):
    """Where stages run. ``count``: how many at a time. ``here``: on this machine and under its lock, which the caller
    holds; else the machine that a stage comes to holds its own."""

    count: int
    here: bool

    def run(
        self, function: Callable[..., T], *args: Any, error: type[StageError] = StageError,
        on_progress: Report = silent, kind: Kind = "build", outputs: Sequence[Path] = (), **kwargs: Any,
    ) -> T:
        """``function(*args, **kwargs)`` over there; its ``report`` argument arrives at ``on_progress``.

        ``outputs`` are folders that it writes into, empty at its start: whoever tries it again empties them.

        Raises:
            AutotuneError: as the stage raised it.
            StageError: of type ``error`` for anything else: an unforeseen exception, a dead process.
        """
        ...

    def close(self, kill: bool = False) -> None:
        """End the processes, at once if told so."""
        ...


class Worker:
    """One process that runs stages one after the other.

    ``log`` receives everything that stages and their libraries print.
    """

    count, here = 1, True

    def __init__(self, log: Path) -> None:
        self._log = log.resolve()
        self._progress = self._log.with_name(f".progress-{os.getpid()}")
        self._executor: ProcessPoolExecutor | None = None
        self._one = threading.Lock()  # of the threads that measure on several devices, one works at a time

    def run(
        self,
        function: Callable[..., T],
        *args: Any,
        error: type[StageError] = StageError,
        on_progress: Report = silent,
        kind: Kind = "build",
        outputs: Sequence[Path] = (),
        **kwargs: Any,
    ) -> T:
        """As ``Workers.run``, once: of which kind a stage is makes no difference here."""
        with self._one:
            return self._run(function, args, kwargs, error, on_progress)

    def _run(
        self, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], error: type[StageError],
        on_progress: Report,
    ) -> T:
        self._progress.unlink(missing_ok=True)
        future = self._started().submit(call, str(self._progress), function, args, kwargs)
        last = ""
        try:
            while True:
                try:
                    return future.result(timeout=_POLL_S)  # type: ignore[no-any-return]
                except FutureTimeout:
                    last = forward(self._progress, on_progress, last)
        except AutotuneError:
            raise
        except TerminatedWorkerError as gone:
            self.close(kill=True)
            named = re.search(r"SIG[A-Z]+", str(gone))
            cause = f"killed by {named[0]}" if named else "died"
            hint = " (out of memory?)" if named and named[0] == "SIGKILL" else ""
            raise error(f"the worker process was {cause}{hint}; its log is {self._log}") from None
        except KeyboardInterrupt:
            self.close(kill=True)
            raise
        except Exception as unforeseen:
            text = " ".join(str(unforeseen).split())[:300]
            raise error(f"{type(unforeseen).__name__}: {text} (log: {self._log})") from unforeseen
        finally:
            self._progress.unlink(missing_ok=True)

    def close(self, kill: bool = False) -> None:
        """End the process, at once if told so; the next ``run`` starts another."""
        if self._executor:
            self._executor.shutdown(wait=True, kill_workers=kill)
            self._executor = None

    def _started(self) -> ProcessPoolExecutor:
        if self._executor is None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._executor = ProcessPoolExecutor(
                max_workers=1, timeout=None, initializer=_begin, initargs=(str(self._log), os.getpid()),
                env=ENVIRONMENT,
            )
        return self._executor


def forward(progress: Path, on_progress: Report, last: str) -> str:
    """Pass on what a stage left of its progress, if it is news; gives what there was."""
    try:
        line = progress.read_text(encoding="utf-8")
        if line != last:
            done, total, note = line.split("\t", 2)
            on_progress(float(done), float(total), note)
        return line
    except (OSError, ValueError):
        return last  # not there yet, or half written: the next poll has it


def _begin(log: str, parent: int) -> None:
    """In the worker: keep its noise, leave Ctrl-C to the parent, follow the parent into death."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    divert(log)
    logging.basicConfig(level=logging.WARNING)

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    # loky takes a worker that grew by 300 MB for a leaking one and starts it anew; ours holds a model.
    process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize


def divert(log: str) -> None:
    """Everything that this process prints goes to the end of a file from here on."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def call(progress: str, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    """In a worker: the stage itself, with a ``report`` that leaves its progress in a file where it asks for one."""
    if kwargs.pop("reporting", False):
        kwargs["report"] = _FileReport(progress)
    return function(*args, **kwargs)


class _FileReport:
    """Leaves the latest progress in a file, at most ten times a second."""

    def __init__(self, path: str) -> None:
        self._path, self._last = Path(path), 0.0

    def __call__(self, done: float, total: float, note: str = "") -> None:
        now = time.monotonic()
        if now - self._last >= 0.1 or done >= total:
            self._last = now
            self._path.write_text(f"{done}\t{total}\t{note}", encoding="utf-8")
