"""The store: whether it can be written, locked and hard-linked, and how much room there is."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from autotune.doctor.finding import Finding

TOPIC = "store"
#: A small model's template, a few deploy points and adapters.
_FEW_BYTES = 5e9
_ELSEWHERE = "autotune run STUDY --store DIR, or AUTOTUNE_STORE=DIR, on another file system"


def storage(root: Path) -> list[Finding]:
    """The store at ``root``, or where it would be made. Leaves nothing behind."""
    place = next((p for p in (root, *root.parents) if p.exists()), Path("/"))
    what = str(root) if place == root else f"{root}, which the first run makes"
    try:
        if not place.is_dir():
            raise NotADirectoryError(20, "not a folder", str(place))
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as scratch:
            findings = [Finding(TOPIC, "folder", what), _links(Path(scratch)), _locks(Path(scratch))]
    except OSError as error:
        return [Finding(TOPIC, "folder", f"{what}: {error.strerror or error}", "problem", "every run",
                        "autotune run STUDY --store DIR, a folder that you may write")]
    return [*findings, _room(place)]


def _links(scratch: Path) -> Finding:
    (scratch / "a").write_text("a")
    try:
        os.link(scratch / "a", scratch / "b")
    except OSError as error:
        return Finding(TOPIC, "hard links", f"refused: {error.strerror}", "warning",
                       "every artifact is a whole copy: more disk, and seconds for each", _ELSEWHERE)
    return Finding(TOPIC, "hard links", "work")


def _locks(scratch: Path) -> Finding:
    try:
        with FileLock(scratch / "lock", timeout=1):
            return Finding(TOPIC, "locks", "work")
    except (OSError, NotImplementedError, Timeout) as error:
        return Finding(TOPIC, "locks", f"refused: {error}", "problem", "every run: two at once would write one entry",
                       _ELSEWHERE)


def _room(place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.1f} GB free"
    if free < _FEW_BYTES:
        return Finding(TOPIC, "room", found, "warning",
                       "a study of a small model takes some GB; --dry-run says how many",
                       "autotune gc --max-size 1GB, or another --store")
    return Finding(TOPIC, "room", found)
