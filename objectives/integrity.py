"""Whether a bundle's folder holds what its manifest says: every file as it was, and no other.

The standard library alone, and nothing of the bundle is opened before this has passed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
SCHEMA = "autotune/bundle@1"

#: What Windows reads as a drive, a stream or a separator is refused everywhere, as are control characters.
_FOREIGN = re.compile(r'[\\:\x00-\x1f]')
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Checked:
    """``problems`` are sentences, each with the file's name; ``manifest`` is None where it cannot be relied on."""

    manifest: Mapping[str, Any] | None
    problems: tuple[str, ...]

    @property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Size and sha256 by name."""
        found: Mapping[str, Mapping[str, Any]] = self.manifest["files"] if self.manifest else {}
        return found


def check(folder: Path) -> Checked:
    """Hold the folder against its manifest: names that leave it, then links, sizes, contents and files too many."""
    try:
        manifest = read(folder)
    except ValueError as error:
        return Checked(None, (str(error),))
    leaving = [f"{MANIFEST}: {problem}" for name in manifest["files"] if (problem := _leaves(name))]
    if leaving:
        return Checked(None, tuple(leaving))
    problems = [_differs(folder, name, expected) for name, expected in manifest["files"].items()]
    too_many = [f"{name} does not belong to the bundle" for name in strangers(folder, manifest["files"])]
    return Checked(manifest, (*filter(None, problems), *too_many))


def read(folder: Path) -> Mapping[str, Any]:
    """The manifest, its own digest checked. Raises ValueError with a sentence for what is wrong."""
    try:
        text = (folder / MANIFEST).read_bytes().decode("utf-8")
        manifest = json.loads(text)
    except FileNotFoundError:
        raise ValueError(f"{MANIFEST} is missing: {folder} is no bundle") from None
    except OSError as error:
        raise ValueError(f"{MANIFEST} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{MANIFEST} is damaged: {error}") from None
    found = manifest.get("schema") if isinstance(manifest, dict) else None
    if found != SCHEMA:
        raise ValueError(f"{MANIFEST}: schema: found {found!r}; accepted: {SCHEMA}")
    if manifest.get("digest") != digest(manifest) or text != written(manifest):
        raise ValueError(f"{MANIFEST} is not as it was written: its digest is another")
    if not _sound(manifest.get("files")):
        raise ValueError(f"{MANIFEST}: files: found no sizes and sha256 by name")
    loaded: Mapping[str, Any] = manifest
    return loaded


def strangers(folder: Path, expected: Mapping[str, Any]) -> list[str]:
    """Files, and links to folders, that the manifest does not know, by their names in the folder."""
    found = []
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if Path(root, name).is_symlink()]
        found += [Path(root, name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(name for name in found if name not in expected and name != MANIFEST)


def digest(manifest: Mapping[str, Any]) -> str:
    """The sha256 of all that a manifest says, and so of all files of its bundle: what names a bundle."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def written(manifest: Mapping[str, Any]) -> str:
    """The one text that a manifest is written as."""
    return json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _sound(files: Any) -> bool:
    return isinstance(files, dict) and all(
        isinstance(f, dict) and isinstance(f.get("size"), int) and _SHA256.fullmatch(str(f.get("sha256")))
        for f in files.values())


def _leaves(name: str) -> str | None:
    """Why a name may be no path inside the folder on some system."""
    if _FOREIGN.search(name) or name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")):
        return f"the name {name!r} may leave the folder; accepted: plain names with / between them"
    return f"it lists {MANIFEST} itself" if name == MANIFEST else None


def _differs(folder: Path, name: str, expected: Mapping[str, Any]) -> str | None:
    path = folder / name
    parts = [path, *path.parents]
    if any(part.is_symlink() for part in parts[: parts.index(folder)]):
        return f"{name} is a symbolic link, or lies behind one"
    try:
        if not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size != expected["size"]:
            cut = "is cut short" if size < expected["size"] else "is too long"
            return f"{name} {cut}: {size} bytes, not {expected['size']}"
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                return f"{name} was changed: its sha256 is another"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror or error}"
    return None
