"""How any stage is run: from the store or into it, under the machine's lock, with progress, events and its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from autotune.errors import StageError
from autotune.pipeline.progress import Report
from autotune.report.terminal import Terminal
from autotune.run_folder import RunFolder
from autotune.storage.entry_key import Key
from autotune.storage.several import make_several
from autotune.storage.store import Entry, Store
from autotune.targets.device import Device

T = TypeVar("T")


class Machine(Protocol):
    """This machine's lock: a MachineLock, or what stands for it where stages run elsewhere."""

    def working(self) -> AbstractContextManager[None]: ...

    def measuring(self) -> AbstractContextManager[None]: ...


class StageExecutor:
    """Runs what makes an entry, or a value. What that raises passes through, but for an OSError while an entry is made,
    which becomes a StageError. events.jsonl tells of all but what is ``run_quick``.

    While a stage works the machine's lock is held shared, while latency is measured here exclusively: in
    between, waiting for another process's entry included, it is not held.
    """

    def __init__(
        self, store: Store, folder: RunFolder, terminal: Terminal, machine: Machine, devices: Sequence[Device]
    ) -> None:
        """``devices`` are those where stages may measure; of our threads one at a time does on each."""
        self._store, self._folder, self._terminal, self._machine = store, folder, terminal, machine
        self._on_device = {each.where: threading.Lock() for each in devices}
        ends = (e for e in folder.events() if e["event"] == "stage_end" and not e["cached"])
        self._took = {e["stage"]: e["seconds"] for e in ends}

    def working(self) -> AbstractContextManager[None]:
        """The machine's lock, shared."""
        return self._machine.working()

    def run_stored(
        self, stage: str, key: Key, title: str, produce: Callable[[Path, Report], Any],
        parents: Sequence[Entry] = (), *, timed: bool = False, measures: Device | None = None,
    ) -> Entry:
        """The entry, made by ``produce`` where the store lacks it. ``timed``: latency is measured, on ``measures``."""
        self._folder.event(event="stage_start", stage=stage, key=str(key))
        span: dict[str, float] = {}
        try:
            with self._terminal.stage(title, self._took.get(stage)) as report:
                entry = self._store.make(key, lambda out: produce(out, report), parents,
                                         during=lambda: self._holding(timed, measures, span))
        except OSError as error:
            raise self._disk_failure(stage, [key], error) from error
        except BaseException as error:
            self._say_failed(stage, key, error)
            raise
        # From where it held the machine's lock: waiting for others is no cost of the stage.
        seconds = 0.0 if entry.cached else span["ended"] - span["began"]
        if not entry.cached:
            self._took[stage] = seconds
        self._folder.event(event="stage_end", stage=stage, key=str(key), seconds=round(seconds, 3),
                           cached=entry.cached, timed=timed, **span)
        return entry

    def run_stored_together(
        self, wanted: Mapping[Key, str], title: str,
        produce: Callable[[Mapping[Key, Path], Report], Mapping[Key, float | StageError]],
    ) -> dict[Key, Entry | StageError]:
        """Entries made in one go, ``wanted`` gives the stage of each; the seconds of their events are their shares."""
        for key, stage in wanted.items():
            self._folder.event(event="stage_start", stage=stage, key=str(key))
        span: dict[str, float] = {}
        try:
            with self._terminal.stage(title) as report:
                found = make_several(self._store, wanted, lambda folders: produce(folders, report),
                                     during=lambda: self._holding(False, None, span))
        except OSError as error:
            raise self._disk_failure(next(iter(wanted.values())), wanted, error) from error
        except BaseException as error:
            for key, stage in wanted.items():
                self._say_failed(stage, key, error)
            raise
        for key, stage in wanted.items():
            entry = found[key]
            if isinstance(entry, StageError):
                self._say_failed(stage, key, entry)
            else:
                self._folder.event(event="stage_end", stage=stage, key=str(key), cached=entry.cached, timed=False,
                                   seconds=0.0 if entry.cached else round(entry.seconds, 3),
                                   **({} if entry.cached else span))
        return found

    def run_unstored(
        self, stage: str, title: str, measure: Callable[[Report], T], *, timed: bool, measures: Device
    ) -> T:
        """What ``measure`` gives, neither looked up in the store nor kept there."""
        key = f"{stage}/{title}"
        self._folder.event(event="stage_start", stage=stage, key=key)
        try:
            with self._terminal.stage(title) as report, self._hold(timed, measures):
                began = time.time()
                result = measure(report)
        except BaseException as error:
            self._say_failed(stage, key, error)
            raise
        ended = time.time()
        self._folder.event(event="stage_end", stage=stage, key=key, seconds=round(ended - began, 3), cached=False,
                           timed=timed, began=round(began, 3), ended=round(ended, 3))
        return result

    def run_quick(self, title: str, work: Callable[[Report], T]) -> T:
        """What ``work`` gives, without an event."""
        with self._terminal.stage(title) as report, self._machine.working():
            return work(report)

    def copy(self, stage: str, key: Key, copy: Callable[[Path], object]) -> None:
        """An entry under another name too, which ``copy`` writes."""
        self._folder.event(event="stage_start", stage=stage, key=str(key))
        self._store.make(key, copy)

    @contextmanager
    def _holding(self, timed: bool, measures: Device | None, span: dict[str, float]) -> Iterator[None]:
        """The machine's lock; when it was had and given back is put into ``span``, seconds since the epoch."""
        with self._hold(timed, measures):
            span["began"] = round(time.time(), 3)
            yield
            span["ended"] = round(time.time(), 3)

    @contextmanager
    def _hold(self, timed: bool, measures: Device | None) -> Iterator[None]:
        """The machine's lock; a remote device has its own, and others may go on working here. Of our threads one at a
        time measures there."""
        remote = measures is not None and measures.is_remote
        with (self._on_device[measures.where] if measures and remote else nullcontext(),
              self._machine.measuring() if timed and not remote else self._machine.working()):
            yield

    def _say_failed(self, stage: str, key: Key | str, error: BaseException) -> None:
        reason = error.reason if isinstance(error, StageError) else type(error).__name__
        self._folder.event(event="stage_failed", stage=stage, key=str(key), reason=reason)

    def _disk_failure(self, stage: str, wanted: Iterable[Key], error: OSError) -> StageError:
        for key in wanted:
            self._folder.event(event="stage_failed", stage=stage, key=str(key), reason=str(error))
        failed = StageError(f"{error.strerror or error}: {error.filename or self._store.root}")
        failed.stage = stage
        return failed
