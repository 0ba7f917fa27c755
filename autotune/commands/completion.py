"""What a shell completes beyond names of options: runs, studies, data files, policies.

Whole paths rather than one folder at a time: the shells' scripts put a space after what they complete. Where nothing
is offered, the shell completes files by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

_DEPTH = 3
_MOST = 2000  # entries of folders that are looked at: a key press must not take long
_RESULTS = "results.json"
_DATA = (".jsonl", ".json", ".csv", ".parquet")


def complete_run(incomplete: str) -> list[str]:
    """Folders with a results.json."""
    return _paths(incomplete, lambda entry: entry.is_dir() and Path(entry.path, _RESULTS).is_file())


def complete_study(incomplete: str) -> list[str]:
    """YAML files that look like a study; a run folder's own copy is not one to run."""
    return _paths(incomplete, _is_study)


def complete_data(incomplete: str) -> list[str]:
    """Files that hold rows."""
    return _paths(incomplete, lambda entry: entry.name.endswith(_DATA) and not _in_run(entry))


def complete_policy(incomplete: str) -> list[str]:
    """What a study's ``policy`` may be."""
    from autotune.study_file import Policy

    return [policy for policy in get_args(Policy) if policy.startswith(incomplete)]


def complete_device(incomplete: str) -> list[str]:
    """Names from the user's devices file."""
    from autotune.errors import ConfigError
    from autotune.targets.devices import devices_path, read_devices

    try:
        names = read_devices(devices_path(os.environ))
    except ConfigError:
        return []
    return sorted(name for name in names if name.startswith(incomplete))


def _is_study(entry: os.DirEntry[str]) -> bool:
    if not entry.name.endswith((".yaml", ".yml")) or _in_run(entry):
        return False
    try:
        text = Path(entry.path).read_text(encoding="utf-8", errors="replace")[:20_000]
    except OSError:
        return False
    return all(f"\n{key}:" in f"\n{text}" for key in ("model", "data", "objectives"))


def _in_run(entry: os.DirEntry[str]) -> bool:
    return Path(entry.path).with_name(_RESULTS).is_file()


def _paths(incomplete: str, wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
    """The wanted entries whose path, written as the user began it, starts with ``incomplete``."""
    root, slash, _ = incomplete.rpartition("/")
    folder = Path(root + slash or ".").expanduser()
    found = (root + slash + os.path.relpath(entry.path, folder) for entry in _entries(folder) if wanted(entry))
    return sorted(path for path in found if path.startswith(incomplete))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Visible entries to a depth, the nearest first."""
    level, seen = [folder], 0
    for _ in range(_DEPTH):
        below: list[Path] = []
        for place in level:
            try:
                entries = sorted(os.scandir(place), key=lambda entry: entry.name)
            except OSError:
                continue
            for entry in entries:
                seen += 1
                if entry.name.startswith("."):
                    continue
                if seen > _MOST:
                    return
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    below.append(Path(entry.path))
        level = below
