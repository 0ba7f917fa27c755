"""What a device keeps of ours: artifacts, found by their contents, within a quota, the oldest going first.

::

    ROOT/artifacts/NAME/…       an artifact's files, all of them; what artifacts have in common is a hard link
    ROOT/artifacts/NAME.json    {"files": {name: {"size", "sha256"}}, "used": n, "boot": id}
    ROOT/incoming/SHA256        a file that is being sent: sending goes on from its length
    ROOT/incoming/SHA256.whole  one that is here, sent and checked or of another artifact, and waits for the rest

``used`` counts up and is no time: a board without a battery wakes up in 1970. What lay there through a restart is read
and hashed again before it is used, as power cuts leave files of the right length and the wrong contents.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from objectives.board import read

_CHUNK = 1 << 20
#: Bytes that stay free on the disk whatever the quota is, or the system itself would suffer.
RESERVE = 200_000_000

#: An artifact's files by name, each with ``size`` and ``sha256``.
Files = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Room:
    """Whether ``needed`` bytes fit, and what went for them. ``short`` is None where they do, else ``quota`` or
    ``disk``; ``used`` is what is kept all the same, ``free`` what the disk has, in bytes."""

    needed: int
    used: int
    free: int
    removed: tuple[str, ...]
    short: str | None


class Depot:
    """Used by one process at a time: whoever holds the device's lock. ``incoming`` is where files are sent to, each
    under its sha256."""

    def __init__(self, root: Path, reserve: int = RESERVE) -> None:
        self._artifacts, self.incoming, self._reserve = root / "artifacts", root / "incoming", reserve
        for folder in (self._artifacts, self.incoming):
            folder.mkdir(parents=True, exist_ok=True)
        self._boot = read("/proc/sys/kernel/random/boot_id")

    def folder(self, name: str) -> Path:
        return self._artifacts / name

    def missing(self, artifacts: Mapping[str, Files]) -> dict[str, dict[str, int]]:
        """The files that have to be sent for these artifacts, and then taken: sha256 → ``size``, and the ``offset`` to
        go on from."""
        self._tidy()
        wanted = {about["sha256"]: int(about["size"]) for files in artifacts.values() for about in files.values()}
        kept = {name: {about["sha256"]: file for file, about in record["files"].items()}
                for name, record in list(self._records())
                if wanted.keys() & {about["sha256"] for about in record["files"].values()}
                and self._is_sound(name, record)}
        new = {about["sha256"] for name, files in artifacts.items() if name not in kept for about in files.values()}
        here: set[str] = set()
        for name, contents in kept.items():
            for sha256 in contents.keys() & new - here:  # its artifact may have to go before it is needed
                _link(self.folder(name) / contents[sha256], self._whole(sha256))
            here |= contents.keys()
        return {sha256: {"size": size, "offset": self._offset(sha256, size)}
                for sha256, size in wanted.items() if sha256 not in here}

    def make_room(self, artifacts: Mapping[str, Files], missing: Mapping[str, Mapping[str, int]], quota: int) -> Room:
        """Remove what is not of these ``artifacts`` until the ``missing`` fits: first what was never finished, then
        artifacts, beginning with the one that was used longest ago."""
        needed = sum(file["size"] - file["offset"] for file in missing.values())
        wanted = {file["sha256"] for files in artifacts.values() for file in files.values()}
        going: list[Path] = [p for p in self.incoming.iterdir() if p.name.removesuffix(".whole") not in wanted]
        going += [self.folder(name) for name in self._oldest_first() if name not in artifacts]
        removed: list[str] = []
        while True:
            used, free = self._used(), shutil.disk_usage(self._artifacts).free
            short = "quota" if used + needed > quota else "disk" if needed and free - needed < self._reserve else None
            if short is None or not going:
                return Room(needed, used, free, tuple(removed), short)
            gone = going.pop(0)
            if gone.parent == self._artifacts:
                removed.append(gone.name)
            self._remove(gone)

    def take(self, sha256: str) -> bool:
        """Accept a file that was sent; False where its contents are others, and it has to be sent from its start."""
        part = self.incoming / sha256
        if not part.exists() or _sha256(part) != sha256:
            part.unlink(missing_ok=True)
            return False
        _sync(part)
        part.rename(self._whole(sha256))
        return True

    def place(self, artifacts: Mapping[str, Files]) -> dict[str, Path]:
        """The artifacts' folders, made of what is here. Raises FileNotFoundError where a file is not.

        Raises ValueError for a file's name that leaves its folder.
        """
        for name, files in artifacts.items():
            if not self.folder(name).is_dir():
                self._make(name, files)
            self._note(name, files)
        for sha256 in (about["sha256"] for files in artifacts.values() for about in files.values()):
            self._whole(sha256).unlink(missing_ok=True)
        return {name: self.folder(name) for name in artifacts}

    def kept(self) -> dict[str, Any]:
        """What is kept, in bytes, and the names of the artifacts, the oldest first."""
        return {"bytes": self._used(), "artifacts": self._oldest_first()}

    def _make(self, name: str, files: Files) -> None:
        """The folder with everything in it, on the disk before it has its name."""
        making = self._artifacts / f".{name}.making"
        for file, about in files.items():
            target = making / _inside(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(self._whole(about["sha256"]), target)
        for inner in (making, *(p for p in making.rglob("*") if p.is_dir())):
            _sync(inner)
        making.rename(self.folder(name))
        _sync(self._artifacts)

    def _whole(self, sha256: str) -> Path:
        return self.incoming / f"{sha256}.whole"

    def _offset(self, sha256: str, size: int) -> int:
        part = self.incoming / sha256
        sent = part.stat().st_size if part.exists() else 0
        if sent > size:
            part.unlink()
        return sent if sent <= size else 0

    def _tidy(self) -> None:
        """Remove what an ended process left half made. What it had taken is taken again: there may have been a restart
        since."""
        records = {path.stem for path in self._artifacts.glob("*.json")}
        for path in self._artifacts.iterdir():
            if path.name.startswith(".") or (path.is_dir() and path.name not in records):
                self._remove(path)
        for path in self.incoming.glob("*.whole"):
            if path.stat().st_nlink > 1:  # it is an artifact's, too
                path.unlink()
            else:
                path.rename(path.with_suffix(""))

    def _is_sound(self, name: str, record: Mapping[str, Any]) -> bool:
        """Whether the artifact is what its record says; one that is not is removed."""
        if not _is_whole(self.folder(name), record["files"], read_all=record["boot"] != self._boot):
            self._remove(self.folder(name))
            return False
        if record["boot"] != self._boot:
            _write(self._artifacts / f"{name}.json", {**record, "boot": self._boot})
        return True

    def _note(self, name: str, files: Files) -> None:
        """Say that the artifact is there and was used last."""
        last = max((record["used"] for _, record in self._records()), default=0)
        plain = {file: {"size": about["size"], "sha256": about["sha256"]} for file, about in files.items()}
        _write(self._artifacts / f"{name}.json", {"files": plain, "used": last + 1, "boot": self._boot})

    def _records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in self._artifacts.glob("*.json"):
            if (record := _record(path)) is not None:
                yield path.stem, record

    def _oldest_first(self) -> list[str]:
        return [name for name, record in sorted(self._records(), key=lambda item: item[1]["used"])]

    def _used(self) -> int:
        """Bytes of all that is kept; a file of several artifacts counts once."""
        sizes = {}
        for folder in (self._artifacts, self.incoming):
            for path in folder.rglob("*"):
                with suppress(FileNotFoundError):  # who only looks holds no lock
                    about = path.stat()
                    sizes[about.st_dev, about.st_ino] = about.st_size if stat.S_ISREG(about.st_mode) else 0
        return sum(sizes.values())

    def _remove(self, path: Path) -> None:
        """A file, or an artifact with its record; the record first, so that half an artifact never has one."""
        path.with_name(f"{path.name}.json").unlink(missing_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def folder_digest(folder: Path, names: Sequence[str]) -> str:
    """Of these files' names and contents."""
    told = [[name, _sha256(folder / name)] for name in sorted(names)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"the file name {name!r} leaves the artifact's folder")
    return path


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy on a file system that has none."""
    if not source.exists():
        raise FileNotFoundError(f"{target.name}: it has not been sent")
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _is_whole(folder: Path, files: Files, *, read_all: bool) -> bool:
    for name, about in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != about["size"]:
            return False
        if read_all and _sha256(path) != about["sha256"]:
            return False
    return True


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        sound = isinstance(record["files"], dict) and isinstance(record["used"], int) and "boot" in record
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if sound else None


def _write(path: Path, record: Mapping[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w", encoding="utf-8") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
