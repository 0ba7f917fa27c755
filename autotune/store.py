"""Content-addressed store: a stage's output is a folder under a hash of what made it.

A key covers the stage's name and version, its parameters, the digests of its inputs and the versions
of the libraries that shape the result. An entry is written beside, fsynced and renamed, so it exists
whole or not at all; one file lock an entry makes a second process wait instead of repeating the work.
Failures are never stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

MANIFEST = "manifest.json"
_DROPPED, _MAKING = ".dropped-", ".making-"


@dataclass(frozen=True)
class Key:
    """Names one entry: ``{stage}/{digest}``."""

    stage: str
    digest: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.digest}"


@dataclass(frozen=True)
class Entry:
    """A stored output. ``seconds`` is what making it took; ``cached`` whether it was there already."""

    key: Key
    path: Path
    seconds: float
    cached: bool


def make_key(stage: str, version: int, inputs: Mapping[str, Any], libraries: tuple[str, ...] = ()) -> Key:
    """The key of a stage's output. ``inputs`` are JSON values: parameters and digests of contents."""
    content = {
        "stage": stage, "version": version, "inputs": inputs,
        "libraries": {name: library_version(name) for name in sorted(libraries)},
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return Key(stage, hashlib.sha256(text.encode()).hexdigest()[:32])


def library_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Store:
    """A folder of entries, shared by any number of studies and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def path(self, key: Key) -> Path:
        return self.root / key.stage / key.digest

    def get(self, key: Key) -> Entry | None:
        """The entry, or None when there is none or it lacks a file its manifest names.

        A damaged entry is moved aside (``*.damaged-…``), so that it is made again.
        """
        path = self.path(key)
        if not path.exists():
            return None
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            whole = all((path / name).stat().st_size == size for name, size in manifest["files"].items())
        except (OSError, ValueError, KeyError):
            whole = False
        if not whole:
            path.rename(path.with_name(f"{path.name}.damaged-{uuid.uuid4().hex[:8]}"))
            return None
        return Entry(key, path, manifest["seconds"], cached=True)

    def make(self, key: Key, inputs: Mapping[str, Any], produce: Callable[[Path], None]) -> Entry:
        """The stored entry, or what ``produce`` writes into the empty folder it is given.

        Whatever ``produce`` raises passes through, and leaves nothing behind.
        """
        with self._locked(key):
            entry = self.get(key)
            if entry:
                return entry
            with self._workspace(key) as folder:
                start = time.perf_counter()
                produce(folder)
                seconds = time.perf_counter() - start
                _write_manifest(folder, key, inputs, seconds)
                target = self.path(key)
                folder.rename(target)
                _fsync(target.parent)
            return Entry(key, self.path(key), seconds, cached=False)

    def drop(self, key: Key) -> None:
        """Forget an entry and free its disk, unless another process works on it just now."""
        path = self.path(key)
        if not path.exists():
            return
        try:
            with self._locked(key, timeout=0):
                doomed = path.with_name(f"{_DROPPED}{uuid.uuid4().hex[:8]}")
                path.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)
        except (Timeout, FileNotFoundError):
            return

    @contextmanager
    def _locked(self, key: Key, timeout: float = -1) -> Iterator[None]:
        locks = self.root / ".locks"
        locks.mkdir(exist_ok=True)
        with FileLock(locks / f"{key.stage}-{key.digest}.lock", timeout=timeout):
            yield

    def _sweep(self) -> None:
        """Clear what killed processes left half dropped, or half made by nobody who is alive."""
        for folder in self.root.glob(f"*/{_DROPPED}*"):
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


def _write_manifest(folder: Path, key: Key, inputs: Mapping[str, Any], seconds: float) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    for path in files:
        _fsync(path)
    manifest = {
        "key": str(key), "inputs": inputs, "seconds": round(seconds, 3),
        "files": {p.relative_to(folder).as_posix(): p.stat().st_size for p in files},
    }
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))


def write_atomically(path: Path, text: str) -> None:
    """Write beside, fsync, rename: a reader sees the old file or the new one, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _fsync(path.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
