"""Run folders to bundle: a real one, certified, made once a test run; and one that is only written."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from autotune import predictions
from autotune.bundle.make import Made, make
from autotune.deployment import rows_digest
from autotune.finished import read_run
from autotune.storage.store import Store
from objectives import integrity
from tests import finished_runs, studies

LIMITS = ["accuracy >= 0.05", "size_mb <= 40", "latency_ms.p95 <= 2000", "latency_ms.p50 <= 50 * baseline"]
STUDY: dict[str, Any] = {
    "target": {"provider": "cpu", "threads": 1, "workload": {"prompt_tokens": 12, "new_tokens": 3, "samples": 6}},
    "space": {"adapter": {**studies.study()["space"]["adapter"], "rank": 4}, "deploy": [{"precision": "int8"}]},
    "constraints": LIMITS, "certificate": {"finalists": 1, "time": "4s"}, "budget": {"adapters": 1},
}
PROMPT = "### Text: {phrase}\n### The tone is:\n"
ARTIFACT = {"genai_config.json": json.dumps({"model": {"context_length": 512, "decoder": {}}}), "model.onnx": "weights"}


@cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="autotune-bundles-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


@cache
def certified() -> Path:
    """The run folder of a tiny study whose trial is certified; its store lies beside, as ``store``."""
    study = studies.write_study(_root(), **STUDY)
    for _ in range(4):  # a ratio of times is left open on a busy machine; running again certifies anew
        done = studies.run(study, _root() / "run")
        if done.returncode != 4:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    return _root() / "run"


@cache
def bundle() -> Path:
    """The bundle of that trial: read it only."""
    return made("bundle").folder


def made(name: str, **options: Any) -> Made:
    run = certified()
    return make(read_run(run), Store(run.parent / "store"), _root() / name, **{"samples": 64, **options})


def copied(target: Path) -> Path:
    """A copy of the bundle to do harm to."""
    shutil.copytree(bundle(), target)
    return target


def resealed(folder: Path, samples: list[dict[str, Any]], **changes: Any) -> Path:
    """The bundle with other sample rows and other fields of its manifest, and a digest that fits."""
    text = "".join(json.dumps(row) + "\n" for row in samples).encode()
    (folder / "samples.jsonl").write_bytes(text)
    manifest = {**json.loads((folder / integrity.MANIFEST).read_text(encoding="utf-8")), **changes}
    manifest["files"]["samples.jsonl"] = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    manifest["digest"] = integrity.digest(manifest)
    (folder / integrity.MANIFEST).write_text(integrity.written(manifest), encoding="utf-8")
    return folder


def manifest_of(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return loaded


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def on_device(folder: Path, program: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``python -I PROGRAM`` in an empty environment and another folder, as on a device."""
    system = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-I", str(folder / program), *arguments], capture_output=True, text=True, env=system,
        cwd=cwd or _root(), timeout=300)


def task(**changes: Any) -> dict[str, Any]:
    """What results.json's ``deployment`` says is asked."""
    return {"kind": "choice", "prompt": PROMPT, "chat": False, "labels": ["fear", "joy"],
            "label_ids": [[5], [6]], "eos_id": 1, "max_new_tokens": 64, "stop": [], **changes}


def written(folder: Path, **changes: Any) -> Path:
    """A run that nothing was run for: trial 2 is selected, its artifact holds no model; 40 validation rows in a file.
    ``changes`` replace fields of results.json."""
    artifact = folder / "run" / "artifacts" / "trial-2"
    artifact.mkdir(parents=True)
    for name, text in ARTIFACT.items():
        (artifact / name).write_text(text, encoding="utf-8")
    size = sum(len(text) for text in ARTIFACT.values()) / 1e6
    rows = [{"phrase": f"phrase {i}", "tone": ("fear", "joy")[i % 2]} for i in range(40)]
    for name in ("train", "valid", "test"):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    digest = rows_digest([(PROMPT.format(**row), row["tone"]) for row in rows])
    trials = [finished_runs.trial(0, "int4", 8, 0.7, 180, size, on_front=True),
              finished_runs.trial(1, "fp16", 8, 0.72, 450, size),
              finished_runs.trial(2, "int8", 16, 0.75, 280, size, on_front=True, artifact="artifacts/trial-2"),
              finished_runs.trial(3, "int4", 4, 0.5, 180, size, state="PRUNED", reason="stopped early")]
    run = finished_runs.write(folder / "run", **{"trials": trials, "deployment": {
        "study_dir": str(folder), "model": {"kind": "folder", "sha256": "0" * 64}, "task": task(),
        "rows": {"valid": digest, "test": digest}}, **changes})
    predictions.save(run / "predictions" / "trial-2.csv", [row["tone"] for row in rows], ["joy"] * len(rows))
    return run
