"""A bundle on disk: plain copies and texts, hashed while they are written, under its name whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.errors import ConfigError, Problem
from autotune.storage.manifest import fsync_folder
from objectives import integrity

_CHUNK = 1 << 20
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755
ACCEPTED = "a new folder, or the folder of a bundle and nothing else, which is replaced"


def require_free(out: Path) -> None:
    """Raises ConfigError where ``out`` is there and holds anything that is no bundle's."""
    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not out.is_dir():
        found = "is no folder"
    elif not any(out.iterdir()):
        return
    else:
        try:
            strangers = integrity.strangers(out, integrity.read(out)["files"])
        except ValueError:
            found = "is there and is no bundle"
        else:
            if not strangers:
                return
            found = f"holds {strangers[0]}, which is no part of the bundle there"
    raise ConfigError([Problem("--out", str(out), found, ACCEPTED)])


def write(
    out: Path, copies: Mapping[str, Path], texts: Mapping[str, str], document: Mapping[str, Any],
    expected: Mapping[str, str],
) -> dict[str, Any]:
    """Make the folder and return its manifest. ``copies`` are files by their names in the bundle.

    ``expected`` holds the sha256 that some of them must have. Raises ConfigError where one has another, or where the
    folder cannot be written; nothing of it is left then, and what was there before stays.
    """
    beside = out.with_name(f".{out.name}.making-{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        files = {name: _copy(source, beside / name) for name, source in sorted(copies.items())}
        for name, sha256 in expected.items():
            if name in files and files[name]["sha256"] != sha256:
                raise ConfigError([Problem(
                    str(copies[name]), "", "damaged: its sha256 is not the one that was stored when it was made",
                    f"the artifact as it was; remove {copies[name].parent} and run the study again")])
        files |= {name: _text(beside / name, text) for name, text in sorted(texts.items())}
        manifest = {**document, "files": files}
        manifest["digest"] = integrity.digest(manifest)
        _text(beside / integrity.MANIFEST, integrity.written(manifest))
        for folder in (beside, *(p for p in beside.rglob("*") if p.is_dir())):
            folder.chmod(_FOLDER_MODE)
            fsync_folder(folder)
        _put(beside, out)
    except OSError as error:
        raise ConfigError([Problem("--out", str(out), f"{error.strerror or error} ({error.filename or out})",
                                   "a folder that can be written, with room for the model")]) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


def _put(beside: Path, out: Path) -> None:
    """Give the new folder its name; a bundle that bears it goes only then."""
    old = out.with_name(f".{out.name}.old-{os.getpid()}")
    if out.exists():
        out.rename(old)
    try:
        beside.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    fsync_folder(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _copy(source: Path, target: Path) -> dict[str, Any]:
    """A plain copy with its own bytes on disk, never a link; returns its size and sha256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sha256, size = hashlib.sha256(), 0
    with source.open("rb") as read, target.open("wb") as write:
        while chunk := read.read(_CHUNK):
            sha256.update(chunk)
            size += write.write(chunk)
        write.flush()
        os.fsync(write.fileno())
    target.chmod(_FILE_MODE)
    return {"size": size, "sha256": sha256.hexdigest()}


def _text(target: Path, text: str) -> dict[str, Any]:
    content = text.encode()
    with target.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    target.chmod(_FILE_MODE)
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
