"""A tiny study on a tiny random model, run through the real command line."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests import tiny

WORDS = {"joy": ["sun", "sing", "cake"], "fear": ["dark", "door", "locked"], "sadness": ["rain", "alone", "grave"]}


def study() -> dict[str, Any]:
    return {
        "name": "tiny",
        "model": "model",
        "data": {
            "train": "train.jsonl", "valid": "valid.jsonl", "test": "test.jsonl",
            "prompt": "### Text: {phrase}\n### The tone is:\n", "answer": "{tone}", "task": "choice",
        },
        "target": {"provider": "cpu", "threads": 1, "workload": {"prompt_tokens": 12, "new_tokens": 3, "samples": 6}},
        "space": {
            "adapter": {
                "rank": [4, 8], "alpha": [8, 16], "learning_rate": {"low": 2e-3, "high": 1e-2, "log": True},
                "targets": ["all-linear", "attention"], "epochs": 1,
            },
            "deploy": [{"precision": "fp16"}, {"precision": ["int8", "int4"]}],
        },
        "objectives": ["accuracy", "latency_ms.p50", "size_mb"],
        "constraints": ["accuracy >= 0.1", "size_mb <= 40"],
        "budget": {"adapters": 2},
        "rungs": [1],  # tests/test_search_in_rungs.py stops some before their end
        "training": {"threads": 1},
        "certificate": {"finalists": 0},  # tests/test_certify.py asks for them
    }


def rows(count: int, seed: int) -> list[dict[str, str]]:
    draw = random.Random(seed)
    return [
        {"phrase": " ".join(draw.choice(WORDS[tone]) for _ in range(3 + i % 4)) + f" {seed}.{i}", "tone": tone}
        for i in range(count) for tone in [list(WORDS)[i % 3]]
    ]


def write_study(folder: Path, **changes: Any) -> Path:
    """The model, its rows and a study.yaml with top-level ``changes``; returns the yaml."""
    if not (folder / "model").exists():
        tiny.make_model(folder / "model")
        for seed, (split, count) in enumerate({"train": 36, "valid": 18, "test": 48}.items()):
            lines = (json.dumps(row) for row in rows(count, seed))
            (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**study(), **changes}, sort_keys=False), encoding="utf-8")
    return path


def command(study_path: Path, out: Path, *options: str) -> list[str]:
    store = study_path.parent / "store"
    places = [str(study_path), "--out", str(out), "--store", str(store)]
    return [sys.executable, "-m", "autotune", "run", *places, *options]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


def run(study_path: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The command run to its end; stdout and stderr as text."""
    return subprocess.run(
        command(study_path, out, *options), capture_output=True, text=True, env=environment(), timeout=300,
        cwd=study_path.parent,
    )


def results(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return loaded
