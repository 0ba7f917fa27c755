"""Content-addressed store: a stage's output is a folder under a hash of what made it.

A key covers the stage's name and version, its parameters, the digests of its inputs and the versions
of the libraries that shape the result. An entry is written beside, fsynced and renamed, so it exists
whole or not at all; one file lock an entry makes a second process wait instead of repeating the work.
Failures are never stored. A manifest in the entry holds what made it and the sha256 of every file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from autotune.storage.entry_key import Key
from autotune.storage.manifest import (
    MANIFEST,
    Inode,
    StoredFile,
    UnusableError,
    check_files,
    commit,
    disk_files,
    fsync_folder,
    hashes_by_inode,
    is_unusable,
    read_manifest,
)
from autotune.storage.manifest import file_sha256 as file_sha256
from autotune.storage.manifest import write_atomically as write_atomically
from autotune.storage.mirror import Mirror

_DROPPED, _MAKING, _DAMAGED = ".dropped-", ".making-", ".damaged-"
_DIGEST = re.compile(r"[0-9a-f]{32}")
_SET_ASIDE = re.compile(r"[0-9a-f]{32}\.damaged-[0-9a-f]{8}")
_KEEP_DAMAGED_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Entry:
    """A stored output. ``seconds`` is what making it took; ``cached`` whether it was there already."""

    key: Key
    path: Path
    seconds: float
    cached: bool


@dataclass(frozen=True)
class Stored:
    """One entry of a listing. ``bytes`` leaves out files that an entry listed before it links too.

    ``last_used`` and ``created`` are seconds since the epoch.
    """

    key: Key
    path: Path
    bytes: int
    last_used: float
    created: float
    files: tuple[StoredFile, ...] = field(default=(), repr=False)


class Store:
    """A folder of entries, shared by any number of studies and processes.

    ``on_damage`` is given one sentence for the user when a damaged entry is set aside. What is not in the folder is
    looked for in the ``mirror``, and what is made is written there too.
    """

    def __init__(
        self, root: Path, on_damage: Callable[[str], None] | None = None, mirror: Mirror | None = None
    ) -> None:
        self.root = root
        self._on_damage, self._mirror = on_damage, mirror
        root.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def path(self, key: Key) -> Path:
        return self.root / key.stage / key.digest

    def get(self, key: Key, *, verify: bool = False) -> Entry | None:
        """The entry, or None when there is none or it is not what its manifest says.

        Sizes are compared always, the sha256 of every file with ``verify``. A damaged entry is moved
        aside (``*.damaged-…``), so that it is made again.
        """
        try:
            entry = self._read(key, verify)
        except UnusableError:
            # Looked at again under the lock: what we read may have been replaced by a whole one meanwhile.
            with contextlib.suppress(Timeout), self._locked(key, timeout=0):
                return self._read_or_clear(key, verify)
            return None
        if entry is None and self._mirror:
            with contextlib.suppress(Timeout), self.opened(key, timeout=0) as found:
                return found if isinstance(found, Entry) else None
        return entry

    def make(
        self, key: Key, produce: Callable[[Path], object], parents: Sequence[Entry] = (), *,
        during: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> Entry:
        """The stored entry, or what ``produce`` writes into the empty folder it is given.

        ``parents`` are entries whose files it may hard-link: their sha256 is taken over, not computed again.
        ``during`` gives what is held while the entry is made, hashed and synced, such as the machine's lock; it is
        entered under the entry's own lock, and waiting for it is not counted in ``seconds``.
        Whatever ``produce`` raises passes through, and leaves nothing behind.
        """
        with self.opened(key) as found:
            if isinstance(found, Entry):
                return found
            with during():
                start = time.perf_counter()
                produce(found)
                return self.finish(key, found, time.perf_counter() - start, parents)

    @contextmanager
    def opened(self, key: Key, timeout: float = -1) -> Iterator[Entry | Path]:
        """The entry, or the empty folder to make it in, for ``finish``; under the entry's lock for this block.

        Raises filelock's Timeout when another process holds the lock for longer than ``timeout`` (s; -1: for ever).
        """
        with self._locked(key, timeout):
            entry = self._read_or_clear(key, verify=False)
            if entry:
                yield entry
                return
            with self._workspace(key) as folder:
                if self._mirror and self._mirror.fetch(key.stage, key.digest, folder):
                    target = self._name(key, folder)
                    yield Entry(key, target, read_manifest(target)["seconds"], cached=True)
                else:
                    yield folder

    def finish(self, key: Key, folder: Path, seconds: float, parents: Sequence[Entry] = ()) -> Entry:
        """Make the folder that ``opened`` gave, and that is complete now, the entry."""
        commit(folder, _facts(key, seconds), self._hashes(parents))
        target = self._name(key, folder)
        if self._mirror:
            self._mirror.push(key.stage, key.digest, target)
        return Entry(key, target, seconds, cached=False)

    def drop(self, key: Key, unused_since: float | None = None) -> bool:
        """Forget an entry and free its disk, unless another process works on it just now.

        With ``unused_since`` (seconds since the epoch) an entry that was used after it stays. True if it went.
        """
        path = self.path(key)
        if not path.exists():
            return False
        try:
            with self._locked(key, timeout=0):
                if unused_since is not None and (path / MANIFEST).stat().st_mtime > unused_since:
                    return False
                doomed = path.with_name(f"{_DROPPED}{uuid.uuid4().hex[:8]}")
                path.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)
                return True
        except (Timeout, FileNotFoundError):
            return False

    def busy(self, key: Key) -> bool:
        """Whether a process holds the entry's lock: it makes the entry, or takes it away."""
        if not self._lock_path(key).exists():
            return False
        try:
            with self._locked(key, timeout=0):
                return False
        except Timeout:
            return True

    def entries(self) -> Iterator[Stored]:
        """Every whole-looking entry, the oldest first, so that a template counts what its artifacts link."""
        found = []
        for path in self.root.glob("[!.]*/[!.]*"):
            with contextlib.suppress(OSError, UnusableError):
                manifest = read_manifest(path)
                if manifest["key"] == f"{path.parent.name}/{path.name}":
                    found.append((manifest["created"], (path / MANIFEST).stat().st_mtime, path, disk_files(path)))
        seen: set[Inode] = set()
        for created, last_used, path, files in sorted(found, key=lambda item: (item[0], str(item[2]))):
            new = {f.inode: f.bytes for f in files if f.inode not in seen}
            seen.update(new)
            yield Stored(Key(path.parent.name, path.name), path, sum(new.values()), last_used, created, files)

    def leftovers(self) -> list[Path]:
        """Folders that nothing reads again: damaged entries, and entries of another format."""
        folders = [p for p in self.root.glob("[!.]*/*") if p.is_dir()]
        return sorted(p for p in folders if _SET_ASIDE.fullmatch(p.name)
                      or (_DIGEST.fullmatch(p.name) and is_unusable(p)))

    def clear(self, leftover: Path) -> None:
        """Remove one of ``leftovers``, unless a process made a whole entry of it meanwhile, or does so now."""
        if _SET_ASIDE.fullmatch(leftover.name):
            shutil.rmtree(leftover, ignore_errors=True)
            return
        with contextlib.suppress(Timeout), self._locked(Key(leftover.parent.name, leftover.name), timeout=0):
            if is_unusable(leftover):
                shutil.rmtree(leftover, ignore_errors=True)

    def _read(self, key: Key, verify: bool) -> Entry | None:
        """The entry, or None when there is none. Raises UnusableError."""
        path = self.path(key)
        if not path.exists():
            return None
        manifest = read_manifest(path)
        check_files(path, manifest, verify)
        with contextlib.suppress(OSError):
            os.utime(path / MANIFEST)  # the time of last use: what is used least is freed first
        return Entry(key, path, manifest["seconds"], cached=True)

    def _read_or_clear(self, key: Key, verify: bool) -> Entry | None:
        """As ``_read``; what is unusable goes out of the way. The caller holds the entry's lock."""
        try:
            return self._read(key, verify)
        except UnusableError as found:
            path = self.path(key)
            word = _DAMAGED if found.reason else _DROPPED
            aside = path.with_name(f"{path.name if found.reason else ''}{word}{uuid.uuid4().hex[:8]}")
            try:
                path.rename(aside)
            except FileNotFoundError:  # another process was quicker
                return None
            if not found.reason:
                shutil.rmtree(aside, ignore_errors=True)
                return None
            os.utime(aside)  # its age counts from now
            if self._on_damage:
                self._on_damage(f"The stored {key} is damaged ({found.reason}); it is set aside and made again.")
            return None

    def _hashes(self, parents: Sequence[Entry]) -> dict[tuple[Inode, int], str]:
        found: dict[tuple[Inode, int], str] = {}
        for parent in parents:
            with contextlib.suppress(OSError, UnusableError):  # a base used where it lies has no manifest
                found |= hashes_by_inode(self.path(parent.key))
        return found

    def _name(self, key: Key, folder: Path) -> Path:
        """Give a whole folder the name of its entry, where any reader finds it."""
        target = self.path(key)
        folder.rename(target)
        fsync_folder(target.parent)
        return target

    def _lock_path(self, key: Key) -> Path:
        return self.root / ".locks" / f"{key.stage}-{key.digest}.lock"

    @contextmanager
    def _locked(self, key: Key, timeout: float = -1) -> Iterator[None]:
        path = self._lock_path(key)
        path.parent.mkdir(exist_ok=True)
        with FileLock(path, timeout=timeout):
            yield

    def _sweep(self) -> None:
        """Clear what killed processes left half dropped, or half made by nobody alive, and old damaged entries."""
        for folder in self.root.glob(f"*/{_DROPPED}*"):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in self.root.glob(f"*/*{_DAMAGED}*"):
            with contextlib.suppress(OSError):
                if _SET_ASIDE.fullmatch(folder.name) and time.time() - folder.stat().st_mtime > _KEEP_DAMAGED_S:
                    shutil.rmtree(folder, ignore_errors=True)
        for folder in self.root.glob(f"*/{_MAKING}*"):
            key = Key(folder.parent.name, folder.name.removeprefix(_MAKING))
            with contextlib.suppress(Timeout), self._locked(key, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _workspace(self, key: Key) -> Iterator[Path]:
        """An empty folder beside the entries; the entry's lock makes leftovers of the dead ours to clear."""
        folder = self.root / key.stage / f"{_MAKING}{key.digest}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _facts(key: Key, seconds: float) -> dict[str, Any]:
    made_of = {name: key.content.get(name) for name in ("version", "inputs", "libraries")}
    return {"key": str(key), "stage": key.stage, **made_of, "seconds": round(seconds, 3)}
