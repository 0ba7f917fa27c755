"""What is on disk of a stored entry: its files, and the manifest that says what they must be."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
#: Raised when what a manifest says changes its meaning; entries of another format are made again.
FORMAT = 2

Inode = tuple[int, int]


@dataclass(frozen=True)
class StoredFile:
    """A name of a file on disk: its inode, its bytes, and how many names it has, here and elsewhere."""

    inode: Inode
    bytes: int
    links: int


class UnusableError(Exception):
    """An entry that cannot be used: ``reason`` says why, or is empty for one of another format."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the entry at ``path``, its shape checked. Raises UnusableError."""
    try:
        return checked_manifest(json.loads((path / MANIFEST).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UnusableError(f"{MANIFEST} is missing") from None
    except (OSError, ValueError):
        raise UnusableError(f"{MANIFEST} cannot be read") from None


def checked_manifest(manifest: Any) -> dict[str, Any]:
    """What a manifest holds, its shape checked. Raises UnusableError."""
    try:
        if manifest.get("format") != FORMAT:
            raise UnusableError("")
        numbers = (manifest["seconds"], manifest["created"], *(f["size"] for f in manifest["files"].values()))
        texts = (manifest["key"], *(f["sha256"] for f in manifest["files"].values()))
        sound = all(isinstance(n, int | float) for n in numbers) and all(isinstance(t, str) for t in texts)
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UnusableError(f"{MANIFEST} cannot be read")
    return manifest  # type: ignore[no-any-return]


def is_unusable(path: Path) -> bool:
    """Whether the manifest at ``path`` is missing, unreadable or of another format."""
    try:
        read_manifest(path)
    except UnusableError:
        return True
    return False


def check_files(folder: Path, manifest: Mapping[str, Any], verify: bool) -> None:
    """Compare sizes, with ``verify`` contents too. Raises UnusableError at the first difference."""
    for name, expected in manifest["files"].items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != expected["size"]:
                raise UnusableError(f"{name} has {size} bytes, not {expected['size']}")
            if verify and file_sha256(path) != expected["sha256"]:
                raise UnusableError(f"the sha256 of {name} is another")
        except FileNotFoundError:
            raise UnusableError(f"{name} is missing") from None
        except OSError as error:
            raise UnusableError(f"{name}: {error.strerror or error}") from None


def hashes_by_inode(folder: Path) -> dict[tuple[Inode, int], str]:
    """sha256 of a stored entry's files, from its manifest, by inode and size. Raises UnusableError."""
    found = {}
    for name, expected in read_manifest(folder)["files"].items():
        stat = (folder / name).stat()
        if stat.st_size == expected["size"]:
            found[(stat.st_dev, stat.st_ino), stat.st_size] = expected["sha256"]
    return found


def commit(folder: Path, facts: Mapping[str, Any], known: Mapping[tuple[Inode, int], str]) -> None:
    """Bring all files and folders to disk, then the manifest: ``facts``, format, time and files.

    ``known`` holds hashes of files that may be linked here.
    """
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST):
        stat = path.stat()
        sha256 = known.get(((stat.st_dev, stat.st_ino), stat.st_size))
        if sha256 is None:  # hashed while it is in the page cache; a linked file was synced with its parent
            sha256 = file_sha256(path)
            _fsync(path)
        files[path.relative_to(folder).as_posix()] = {"size": stat.st_size, "sha256": sha256}
    for path in folder.rglob("*"):
        if path.is_dir():
            fsync_folder(path)
    manifest = {"format": FORMAT, **facts, "created": time.time(), "files": files}
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))


def adopt(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Make the files in a folder the entry that a manifest made elsewhere tells of, once each is what it says.

    Raises UnusableError.
    """
    check_files(folder, manifest, verify=True)
    for path in folder.rglob("*"):
        fsync_folder(path) if path.is_dir() else _fsync(path)
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))


def disk_files(folder: Path) -> tuple[StoredFile, ...]:
    """Every name of a file in the folder; a file linked twice is there twice."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            stat = path.stat()
            found.append(StoredFile((stat.st_dev, stat.st_ino), stat.st_size, stat.st_nlink))
    return tuple(found)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write beside, fsync, rename: a reader sees the old file or the new one, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
