"""What the comparisons share: the adapters and deploy points, the rows, our study of them, and what a side came to."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TONE = Path(__file__).resolve().parent.parent / "examples" / "tone"
PROMPT, ANSWER = "### Text: {phrase}\n### The tone is:\n", "{tone}"
LABELS = ("joy", "sadness", "fear", "surprise")
LEARNING_RATE = 5e-4
#: (rank, alpha), in an order of which every beginning of 1, 2 or 4 is a full grid.
ADAPTERS = ((8, 16), (16, 16), (8, 32), (16, 32))
#: Our label → our deploy point, Olive's settings of its ModelBuilder pass. (No int8: that builder has none.)
POINTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fp32": ({"precision": "fp32"}, {"precision": "fp32", "int4_block_size": 32, "int4_algo_config": "default"}),
    "int4-b32": ({"precision": "int4", "block_size": 32},
                 {"precision": "int4", "int4_block_size": 32, "int4_algo_config": "default"}),
    "int4-b128": ({"precision": "int4", "block_size": 128},
                  {"precision": "int4", "int4_block_size": 128, "int4_algo_config": "default"}),
    "int4-rtn-b32-int8head": ({"precision": "int4", "block_size": 32, "algorithm": "rtn", "int8_where": "head"},
                              {"precision": "int4", "int4_block_size": 32, "int4_algo_config": "rtn_last"}),
}
Trial = tuple[int, float, str]


@dataclass(frozen=True)
class Side:
    """What one tool came to. ``seconds`` are sums by stage; ``peak_mb`` is the largest process's."""

    makespan: float
    exit_code: int
    peak_mb: float
    accuracy: dict[Trial, float]
    seconds: dict[str, float]
    counts: dict[str, int]


def say(began: float, text: str) -> None:
    print(f"[{time.monotonic() - began:7.1f} s] {text}", file=sys.stderr, flush=True)


def run_timed(command: list[str], log: Path, env: dict[str, str], cwd: Path) -> tuple[float, int, float]:
    """Wall seconds, exit code and peak MB (of the largest process of the tree) of one command; output to ``log``."""
    with log.open("w", encoding="utf-8") as file:
        began = time.monotonic()
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env, cwd=cwd)
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.terminate()
            raise
        child.returncode = os.waitstatus_to_exitcode(status)
    return time.monotonic() - began, child.returncode, usage.ru_maxrss / 1024


def write_rows(files: list[Path], folder: Path, train: int, evaluate: int) -> None:
    """The first rows to train.jsonl, the last ones to valid.jsonl; exits when none would be left between them.

    Of those, some go to test.jsonl: a study without that file would cut its test rows from the training rows.
    """
    rows = [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if train + evaluate + 1 > len(rows):
        sys.exit(f"{len(rows)} rows in {', '.join(map(str, files))}: fewer than {train} + {evaluate} + 1")
    parts = {"train": rows[:train], "valid": rows[-evaluate:], "test": rows[train:-evaluate][:evaluate]}
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(part) + "\n", encoding="utf-8")


def our_stages(events: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    return ((e["stage"], e["seconds"]) for e in events if e["event"] == "stage_end" and not e["cached"])


def stage_sums(stages: Iterator[tuple[str, float]]) -> tuple[dict[str, float], dict[str, int]]:
    seconds: dict[str, float] = {}
    counts: dict[str, int] = {}
    for stage, spent in stages:
        seconds[stage] = seconds.get(stage, 0.0) + spent
        counts[stage] = counts.get(stage, 0) + 1
    return seconds, counts


def study(args: argparse.Namespace) -> dict[str, Any]:
    adapters, points = ADAPTERS[: args.adapters], list(POINTS)[: args.points]
    return {
        "name": "versus-olive", "model": str(args.model),
        "data": {"train": "train.jsonl", "valid": "valid.jsonl", "test": "test.jsonl", "prompt": PROMPT,
                 "answer": ANSWER, "task": "choice", "labels": list(LABELS)},
        "target": {"provider": "cpu", "threads": args.threads, "workload": {"prompt_tokens": 64, "new_tokens": 8},
                   "context_length": 1024},
        "space": {
            "adapter": {"rank": sorted({r for r, _ in adapters}), "alpha": sorted({a for _, a in adapters}),
                        "learning_rate": LEARNING_RATE, "targets": "all-linear", "steps": args.steps,
                        "batch_size": args.batch},
            "deploy": [POINTS[p][0] for p in points],
        },
        "objectives": ["accuracy", "latency_ms.p50", "size_mb"],
        "budget": {"adapters": args.adapters},
        "training": {"threads": args.threads},
        "rungs": [1],  # every adapter trains to its end, and
        "early_stop_error": 0,  # every trial is asked all rows, as Olive's are
        "certificate": {"finalists": 0},
    }


def run_ours(args: argparse.Namespace, work: Path, began: float) -> Side:
    (work / "study.yaml").write_text(yaml.safe_dump(study(args), sort_keys=False), encoding="utf-8")
    out = work / "ours"
    command = [sys.executable, "-m", "autotune", "run", "study.yaml", "--out", str(out), "--store", str(work / "store")]
    say(began, f"autotune: {args.adapters} adapters × {args.points} deploy points; log in {work / 'ours.log'}")
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    makespan, code, peak = run_timed(command, work / "ours.log", env, work)
    accuracy: dict[Trial, float] = {}
    if (out / "results.json").exists():
        for trial in json.loads((out / "results.json").read_text(encoding="utf-8"))["trials"]:
            if trial["state"] == "COMPLETE":
                params = trial["params"]
                key = params["rank"], float(params["alpha"]), trial["deploy_point"]
                accuracy[key] = trial["values"]["accuracy"]["value"]
    log = out / "events.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    side = Side(makespan, code, peak, accuracy, *stage_sums(our_stages(lines)))
    say(began, f"autotune ended with exit code {code} after {makespan:.1f} s: {len(accuracy)} trials")
    return side
