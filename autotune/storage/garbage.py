"""What of a store no run reaches any more, and what goes first when it must be smaller.

A run reaches the entries that its events.jsonl names. What to free is decided by a pure function; around it are
the look at the disk and the freeing. A store's size counts a file once, however many entries link it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from autotune.errors import StudyError
from autotune.storage import run_registry
from autotune.storage.entry_key import Key
from autotune.storage.manifest import StoredFile, disk_files
from autotune.storage.run_registry import Registered
from autotune.storage.store import Store, Stored

SIZES = "a size such as 500MB, 5GB or 1.5GiB"
_UNITS: dict[str, int] = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
                          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_EVENTS = ("stage_start", "stage_end")


@dataclass(frozen=True)
class Run:
    """A run that uses the store. ``started`` is when its process began (seconds since the epoch)."""

    path: Path
    exists: bool
    active: bool
    started: float
    keys: frozenset[Key]


@dataclass(frozen=True)
class Held:
    """A store and its runs at one moment; ``busy`` are the entries that a process makes or frees just now."""

    entries: tuple[Stored, ...]
    runs: tuple[Run, ...]
    busy: frozenset[Key] = frozenset()


def parse_size(text: str) -> int:
    """``500MB``, ``5GB``, ``1.5GiB`` → bytes.

    Raises:
        ValueError: of another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]+)", text.strip().upper(), re.ASCII)
    if not match or match[2] not in _UNITS:
        raise ValueError(repr(text))
    return round(float(match[1]) * _UNITS[match[2]])


def show_size(size: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


def plan(held: Held, max_size: int | None = None) -> list[Key]:
    """The entries to free, those used least recently first.

    All that no run reaches; with ``max_size`` (bytes) also reached ones until the rest is at most that large,
    or nothing more may go. Never what an active run reaches, what was made or used since one began (its events
    may not name it yet), or what is busy.
    """
    active = [run for run in held.runs if run.active]
    began = min((run.started for run in active), default=float("inf"))
    kept_for = held.busy.union(*(run.keys for run in active))
    reached = frozenset().union(*(run.keys for run in held.runs))
    free = sorted((e for e in held.entries if e.key not in kept_for and max(e.created, e.last_used) < began),
                  key=lambda e: (e.last_used, e.created, str(e.key)))
    doomed = {e.key for e in free if e.key not in reached}
    if max_size is not None:
        disk = _Disk(e for e in held.entries if e.key not in doomed)
        doomed |= _shrink(disk, [e for e in free if e.key in reached], max_size)
    return [e.key for e in free if e.key in doomed]


def _shrink(disk: _Disk, candidates: list[Stored], max_size: int) -> set[Key]:
    """The first of the candidates whose going makes the disk small enough, less those that need not go."""
    going = []
    for entry in candidates:
        if disk.bytes <= max_size:
            break
        disk.remove(entry)
        going.append(entry)
    spared = set()
    for entry in reversed(going):  # a measurement of a few kB is spared when a large entry had to go too
        disk.add(entry)
        if disk.bytes <= max_size:
            spared.add(entry.key)
        else:
            disk.remove(entry)
    return {e.key for e in going} - spared


class _Disk:
    """The bytes of entries that share files."""

    def __init__(self, entries: Iterable[Stored]) -> None:
        self.bytes = 0
        self._names: Counter[tuple[int, int]] = Counter()
        for entry in entries:
            self.add(entry)

    def add(self, entry: Stored) -> None:
        for file in entry.files:
            self.bytes += file.bytes * (self._names[file.inode] == 0)
            self._names[file.inode] += 1

    def remove(self, entry: Stored) -> None:
        for file in entry.files:
            self._names[file.inode] -= 1
            self.bytes -= file.bytes * (self._names[file.inode] == 0)


def disk_bytes(entries: Iterable[Stored]) -> int:
    """What entries take together: a file that several link counts once."""
    return _Disk(entries).bytes


def reclaimable(files: Iterable[StoredFile]) -> int:
    """The bytes that come free when these names go: of files that have no other name, here or in a run folder."""
    names: Counter[tuple[int, int]] = Counter()
    known = {}
    for file in files:
        names[file.inode] += 1
        known[file.inode] = file
    return sum(file.bytes for file in known.values() if names[file.inode] >= file.links)


def survey(store: Store) -> Held:
    """What the store holds, and for whom.

    Raises:
        StudyError: a run's folder cannot be read, so what it reaches is not known.
    """
    entries = tuple(store.entries())
    runs = tuple(_run(known) for known in run_registry.registered(store.root))
    return Held(entries, runs, frozenset(e.key for e in entries if store.busy(e.key)))


def collect(store: Store, max_size: int | None = None, dry_run: bool = False) -> dict[str, Any]:
    """Free what no run reaches and, given ``max_size`` (bytes), what was used least recently; say what and for whom.

    The document's ``stages``, ``runs`` and ``leftovers`` are as found, ``held`` is what remains. ``freed.bytes``
    leaves out files that a run folder or another entry still links. ``dry_run`` frees nothing.

    Raises:
        StudyError: a run's folder cannot be read, so what it reaches is not known.
    """
    held, leftovers = survey(store), store.leftovers()
    by_key = {e.key: e for e in held.entries}
    left_files = [f for path in leftovers for f in _files(path)]
    freed = plan(held, max_size)
    if not dry_run:
        for path in leftovers:
            store.clear(path)
        # What a process took up since we looked is used, whoever it is.
        freed = [key for key in freed if store.drop(key, unused_since=by_key[key].last_used)]
        for run in held.runs:
            if not run.exists:
                run_registry.unregister(store.root, run.path)
    gone = set(freed)
    rest = [e for e in held.entries if e.key not in gone]
    freed_files = left_files + [f for key in freed for f in by_key[key].files]
    return {
        "store": str(store.root), "dry_run": dry_run, "max_size": max_size,
        "stages": _by_stage(held.entries),
        "runs": [_by_run(run, held.entries) for run in held.runs],
        "leftovers": {"entries": len(leftovers), "bytes": reclaimable(left_files)},
        "freed": {"entries": len(freed) + len(leftovers), "bytes": reclaimable(freed_files),
                  "keys": [str(key) for key in freed]},
        "held": {"entries": len(rest), "bytes": disk_bytes(rest), "runs": sum(run.exists for run in held.runs)},
    }


def _by_stage(entries: Iterable[Stored]) -> dict[str, dict[str, int]]:
    stages: dict[str, dict[str, int]] = {}
    for entry in sorted(entries, key=lambda e: e.key.stage):
        stage = stages.setdefault(entry.key.stage, {"entries": 0, "bytes": 0})
        stage["entries"] += 1
        stage["bytes"] += entry.bytes
    return stages


def _by_run(run: Run, entries: Iterable[Stored]) -> dict[str, Any]:
    own = [e for e in entries if e.key in run.keys]
    return {"path": str(run.path), "exists": run.exists, "active": run.active, "entries": len(own),
            "bytes": disk_bytes(own)}


def _run(registered: Registered) -> Run:
    path = registered.path
    try:
        if not path.is_dir():
            return Run(path, False, False, registered.time, frozenset())
        # The lock before the events: a run that ends in between has written all of them by then.
        active = _is_active(path)
        events = _events(path / "events.jsonl")
    except OSError as error:
        raise StudyError(f"{error.filename or path}: {error.strerror or error}; without it, what this run needs "
                         f"cannot be told from what nobody needs") from error
    starts = [e["time"] for e in events if e.get("event") == "run_start" and isinstance(e.get("time"), int | float)]
    named = (e["key"].partition("/") for e in events if e.get("event") in _EVENTS and isinstance(e.get("key"), str))
    keys = frozenset(Key(stage, digest) for stage, _, digest in named)
    return Run(path, True, active, starts[-1] if starts else registered.time, keys)


def _events(path: Path) -> list[dict[str, Any]]:
    """The lines of events.jsonl; one that was torn when its writer was killed is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found


def _is_active(run: Path) -> bool:
    lock = run / ".lock"
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _files(path: Path) -> tuple[StoredFile, ...]:
    try:
        return disk_files(path)
    except OSError:  # gone meanwhile
        return ()
