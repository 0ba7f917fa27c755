"""A store that machines share through an object or file system, beneath the local one: read through, written back.

Files lie there under their sha256, so entries that link one file hold it once, and writers of the same entry do not
disturb each other; an entry is there once its manifest is, which is written last. All of fsspec's file systems serve.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from autotune.errors import ConfigError, Problem
from autotune.machine_lock import MachineLock
from autotune.storage.manifest import MANIFEST, UnusableError, adopt, checked_manifest, read_manifest
from autotune.storage.urls import masked, without_secrets

#: An artifact is written anew from an adapter and a deploy point sooner than it is fetched, and most are soon dropped.
_MADE_AGAIN = ("artifact",)
#: Where a file has its name only when it is whole. Elsewhere it is written beside and renamed.
_WHOLE_AT_ONCE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "adl", "oci", "memory"}
#: Packages of file systems that are often meant.
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


class Mirror:
    """Entries at a URL. ``say`` is given a sentence when it cannot be read or written any more: work goes on locally.

    Raises:
        ConfigError: fsspec knows no such file system, its package is not installed, or it cannot be reached.
    """

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        import fsspec

        self._url, self._say, self._said = url, say, False
        protocol = url.partition("://")[0]
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
            self._files.exists(self._root)
        except (ImportError, ValueError) as error:
            hint = f"pip install {_PACKAGES[protocol]}" if protocol in _PACKAGES else "a URL that fsspec opens"
            raise ConfigError([self._problem(self._told(error), hint)]) from None
        except Exception as error:  # noqa: BLE001 (each file system raises its own)
            raise ConfigError([self._problem(self._told(error), "a store that can be reached")]) from None
        self._renames = protocol not in _WHOLE_AT_ONCE
        self._machine = MachineLock()
        #: Files of entries that could not be fetched whole: they are written again, whatever lies there.
        self._doubtful: set[str] = set()

    def fetch(self, stage: str, digest: str, folder: Path) -> bool:
        """The entry into an empty folder, every file held against its sha256; False, and the folder empty, where it is
        not there."""
        try:
            with self._machine.working():
                self._fetch(f"{stage}/{digest}", self._files.cat_file(self._entry(stage, digest)), folder)
                return True
        except (FileNotFoundError, UnusableError, UnicodeDecodeError, json.JSONDecodeError):
            pass  # not there, or what is there is not what its manifest says
        except Exception as error:  # noqa: BLE001 (each file system raises its own)
            self._warn("read", error)
        shutil.rmtree(folder)
        folder.mkdir()
        return False

    def push(self, stage: str, digest: str, folder: Path) -> None:
        """Write a whole entry there, unless it is one that is made again sooner."""
        if stage in _MADE_AGAIN:
            return
        try:
            with self._machine.working():
                manifest = read_manifest(folder)
                for name, facts in manifest["files"].items():
                    self._push_file(folder / name, facts["sha256"], facts["size"])
                self._write(self._entry(stage, digest), (folder / MANIFEST).read_bytes())
        except Exception as error:  # noqa: BLE001 (each file system raises its own)
            self._warn("written", error)

    def _fetch(self, key: str, text: bytes, folder: Path) -> None:
        manifest = checked_manifest(json.loads(text))
        if manifest["key"] != key:
            raise UnusableError(f"the manifest is that of {manifest['key']}")
        files = manifest["files"]
        self._doubtful |= {facts["sha256"] for facts in files.values()}
        for name, facts in files.items():
            self._fetch_file(folder, name, facts["sha256"])
        adopt(folder, manifest)
        self._doubtful -= {facts["sha256"] for facts in files.values()}

    def _fetch_file(self, folder: Path, name: str, sha256: str) -> None:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise UnusableError(f"{name} is no file of an entry")
        target = folder / parts
        target.parent.mkdir(parents=True, exist_ok=True)
        self._files.get_file(self._file(sha256), str(target))

    def _push_file(self, path: Path, sha256: str, size: int) -> None:
        there = self._file(sha256)
        if sha256 not in self._doubtful and self._files.exists(there) and self._files.size(there) == size:
            return
        self._put(there, lambda place: self._files.put_file(str(path), place))

    def _write(self, there: str, content: bytes) -> None:
        self._put(there, lambda place: self._files.pipe_file(place, content))

    def _put(self, there: str, write: Callable[[str], Any]) -> None:
        self._files.makedirs(there.rpartition("/")[0], exist_ok=True)
        beside = f"{there}.{uuid.uuid4().hex[:8]}" if self._renames else there
        write(beside)
        if self._renames:
            self._files.mv(beside, there)

    def _entry(self, stage: str, digest: str) -> str:
        return f"{self._root}/entries/{stage}/{digest}.json"

    def _file(self, sha256: str) -> str:
        return f"{self._root}/files/{sha256[:2]}/{sha256}"

    def _warn(self, what: str, error: Exception) -> None:
        if not self._said:
            self._said = True
            self._say(f"the store {masked(self._url)} cannot be {what}: {self._told(error)}; work goes on with the "
                      "local one")

    def _told(self, error: Exception) -> str:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        return without_secrets(text, self._url)

    def _problem(self, found: str, accepted: str) -> Problem:
        return Problem("study.yaml", "store", f"{masked(self._url)}: {found}", accepted)
