"""Which run folders use a store: what they name in their events.jsonl is not garbage."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from autotune.storage.manifest import write_atomically

_RUNS = ".runs"


@dataclass(frozen=True)
class Registered:
    """A run folder that uses the store, and when it last said so (seconds since the epoch)."""

    path: Path
    time: float


def register(store: Path, run_folder: Path) -> None:
    """Remember that this run uses the store in the folder ``store``."""
    path = run_folder.resolve()
    file = _registration(store, path)
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, json.dumps({"path": str(path), "time": time.time()}, ensure_ascii=False))


def registered(store: Path) -> list[Registered]:
    """The runs that use the store."""
    runs = []
    for file in sorted((store / _RUNS).glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(file.read_text(encoding="utf-8"))
            runs.append(Registered(Path(found["path"]), float(found["time"])))
    return runs


def unregister(store: Path, run_folder: Path) -> None:
    """Forget a run that is no more."""
    _registration(store, run_folder).unlink(missing_ok=True)


def _registration(store: Path, run_folder: Path) -> Path:
    return store / _RUNS / f"{hashlib.sha256(str(run_folder).encode()).hexdigest()[:32]}.json"
