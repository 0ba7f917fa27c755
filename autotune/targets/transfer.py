"""What goes to a device over SFTP: the package `objectives`, and artifacts, each file found by its sha256."""

from __future__ import annotations

import asyncio
import hashlib
import json
import posixpath
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import asyncssh

import objectives
from autotune.pipeline.progress import Report
from autotune.storage.manifest import file_sha256
from objectives.device.depot import folder_digest

_CHUNK = 1 << 20
_MB = 1e6


@dataclass(frozen=True)
class Artifact:
    """A folder's files by name, each with ``size`` and ``sha256``; ``name`` is a digest of them."""

    folder: Path
    files: Mapping[str, Mapping[str, Any]]

    @property
    def name(self) -> str:
        told = sorted((name, about["sha256"]) for name, about in self.files.items())
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]

    @property
    def size(self) -> int:
        return sum(about["size"] for about in self.files.values())

    def sources(self) -> dict[str, Path]:
        """The files by their sha256."""
        return {about["sha256"]: self.folder / name for name, about in self.files.items()}


def describe(folder: Path) -> Artifact:
    """The artifact in a folder; each file is read once in a process, until it changes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return Artifact(folder, {path.relative_to(folder).as_posix(): _about(path) for path in paths})


def _about(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"size": stat.st_size, "sha256": _sha256(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)}


@lru_cache(maxsize=4096)
def _sha256(path: Path, inode: int, size: int, mtime_ns: int) -> str:
    return file_sha256(path)


async def send(
    sftp: asyncssh.SFTPClient, sources: Mapping[str, Path], missing: Mapping[str, Mapping[str, int]], to: str,
    report: Report,
) -> None:
    """Write each missing file into the device's folder ``to`` under its sha256, from where an earlier try left off."""
    total = sum(about["size"] for about in missing.values())
    done = sum(about["offset"] for about in missing.values())
    for sha256, about in missing.items():
        offset = about["offset"]
        flags = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT
        async with sftp.open(posixpath.join(to, sha256), flags, encoding=None) as file:
            while offset < about["size"]:
                chunk = await asyncio.to_thread(_chunk, sources[sha256], offset)
                await file.write(chunk, offset)
                offset, done = offset + len(chunk), done + len(chunk)
                report(done, total, f"sending, {done / _MB:.0f} of {total / _MB:.0f} MB")


def _chunk(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        found = file.read(_CHUNK)
    if not found:
        raise OSError(f"{path} became shorter while it was sent")
    return found


def package() -> tuple[str, dict[str, Path]]:
    """The package `objectives` as it is here: its digest, and its files by name."""
    home = Path(objectives.__file__).parent
    files = {path.relative_to(home).as_posix(): path for path in home.rglob("*.py")}
    return folder_digest(home, list(files)), files


async def put_package(sftp: asyncssh.SFTPClient, root: str) -> str:
    """The folder on the device that holds `objectives`, sent where it is not there yet; it appears whole."""
    digest, files = await asyncio.to_thread(package)
    folder = posixpath.join(root, "code", digest[:32])
    if await sftp.isdir(folder):
        return folder
    making = f"{folder}.{uuid.uuid4().hex[:8]}"
    home = posixpath.join(making, "objectives")
    for inner in sorted({posixpath.dirname(posixpath.join(home, name)) for name in files}):
        await sftp.makedirs(inner, exist_ok=True)
    await asyncio.gather(*(_write(sftp, posixpath.join(home, name), path.read_bytes()) for name, path in files.items()))
    try:
        await sftp.rename(making, folder)
    except asyncssh.SFTPError:  # another machine was first
        await sftp.rmtree(making, ignore_errors=True)
    return folder


async def _write(sftp: asyncssh.SFTPClient, path: str, content: bytes) -> None:
    async with sftp.open(path, "wb") as file:
        await file.write(content)


async def drop_package(sftp: asyncssh.SFTPClient, folder: str) -> None:
    """Remove what is damaged there."""
    await sftp.rmtree(folder, ignore_errors=True)
