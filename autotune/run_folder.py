"""The run folder: what a study leaves on disk, and the lock that keeps it to one process."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from filelock import FileLock, Timeout

from autotune import __version__
from autotune.errors import ConfigError, Problem
from autotune.report.wording import join
from autotune.storage.entry_key import library_version
from autotune.storage.store import write_atomically
from autotune.study_file import MAY_CHANGE

LIBRARIES = (
    "torch", "transformers", "peft", "bitsandbytes", "optuna", "onnxruntime", "onnxruntime-genai", "onnx",
    "evaluate", "numpy", "pandas",
)
#: Names under which files of a run folder are written before they have their own, and a worker's progress.
_BESIDE = (".study.yaml.[0-9]*", ".environment.json.[0-9]*", ".inputs.json.[0-9]*", ".results.json.[0-9]*",
           ".database.json.[0-9]*", ".study.db.[0-9]*", ".certificate.json.[0-9]*", ".trials.csv.[0-9]*",
           ".report.html.[0-9]*", ".progress-[0-9]*")
_LINKING = ".linking"


class RunFolder:
    """Paths of a run. Entering it takes the lock; a second process is turned away.

    Raises:
        ConfigError: on entering, when the folder belongs to another study or another process works in it.
    """

    def __init__(self, root: Path, config_sha256: str, resolved: Mapping[str, Any]) -> None:
        self.root = root.resolve()
        self._sha = config_sha256
        self._resolved = resolved
        self._lock, self._writing = FileLock(self.root / ".lock"), threading.Lock()
        self.database = self.root / "study.db"
        self.log = self.root / "worker.log"
        self.results = self.root / "results.json"
        self.certificate = self.root / "certificate.json"
        self.scratch = self.root / ".scratch"
        self.artifacts = self.root / "artifacts"
        self.predictions = self.root / "predictions"

    def __enter__(self) -> RunFolder:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except OSError as error:
            if isinstance(error, Timeout):
                raise ConfigError([Problem(str(self.root), "", "another process works in this run folder",
                                           "waiting for it, or another --out")]) from None
            raise ConfigError([Problem(str(self.root), "--out", error.strerror or str(error),
                                       "a folder that can be written")]) from None
        try:
            self._require_same_study()
        except BaseException:
            self._lock.release()
            raise
        self._clear_leftovers()
        self.scratch.mkdir()
        text = yaml.safe_dump(dict(self._resolved), sort_keys=False, allow_unicode=True)
        write_atomically(self.root / "study.yaml", f"# config_sha256: {self._sha}\n{text}")
        write_atomically(self.root / "environment.json", json.dumps(environment(), indent=1))
        self.event(event="run_start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._lock.release()

    def event(self, **fields: Any) -> None:
        """Append one line to events.jsonl."""
        path = self.root / "events.jsonl"
        line = json.dumps({"time": round(time.time(), 3), **fields}, ensure_ascii=False) + "\n"
        with self._writing, path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a process died while it wrote
                    line = "\n" + line
            file.write(line.encode())

    def events(self) -> list[dict[str, Any]]:
        return read_events(self.root)

    def require_same_inputs(self, keys: Mapping[str, str]) -> None:
        """Trials of one run must rest on one base model and one set of rows.

        Raises:
            ConfigError: they, or a library that shapes them, changed since the run began.
        """
        path = self.root / "inputs.json"
        if not path.exists():
            write_atomically(path, json.dumps(dict(keys), indent=1))
            return
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name, key in keys.items() if before.get(name) != key]
        if changed:
            raise ConfigError([Problem(
                str(self.root), ", ".join(changed),
                "contents, or the libraries that read them, changed since this run began",
                "what the run began with, or another --out",
            )])

    def _clear_leftovers(self) -> None:
        """What killed processes left of files and folders that they were writing."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        for name in _BESIDE:
            for file in self.root.glob(name):
                file.unlink(missing_ok=True)
        for file in self.predictions.glob(".*.csv.[0-9]*"):
            file.unlink(missing_ok=True)
        for folder in self.artifacts.glob(f".*{_LINKING}"):
            shutil.rmtree(folder, ignore_errors=True)

    def _require_same_study(self) -> None:
        path = self.root / "study.yaml"
        if not path.exists():
            return
        text = path.read_text(encoding="utf-8")
        if f"config_sha256: {self._sha}" in text.partition("\n")[0]:
            return
        before = yaml.safe_load(text)
        differing = [k for k in self._resolved
                     if k not in MAY_CHANGE and before.get(k) != self._resolved[k]]
        raise ConfigError([Problem(
            str(self.root), ", ".join(differing) or "study.yaml",
            "this run folder belongs to a study that differs here",
            f"the same study (its {join(MAY_CHANGE)} may change), or another --out",
        )])


def read_events(root: Path) -> list[dict[str, Any]]:
    """Every line of a run folder's events.jsonl; one that a dying process left unfinished is skipped."""
    path = root / "events.jsonl"
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def environment() -> dict[str, Any]:
    """Machine and versions: what every figure of the run depends on."""
    import psutil

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {
        "autotune": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "libraries": {name: library_version(name) for name in LIBRARIES},
    }


def link_tree(source: Path, target: Path) -> None:
    """``target`` becomes a copy of ``source`` that shares its disk where the file system can."""
    beside = target.with_name(f".{target.name}{_LINKING}")
    for folder in (beside, target):
        shutil.rmtree(folder, ignore_errors=True)

    def link(a: str, b: str) -> None:
        try:
            os.link(a, b)
        except OSError:
            shutil.copy2(a, b)

    shutil.copytree(source, beside, copy_function=link)
    beside.rename(target)
