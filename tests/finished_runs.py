"""A run folder as ``autotune run`` leaves it, without running anything: for tests of what is made from one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests import studies

DEPLOY = {"algorithm": "default", "block_size": 32, "symmetric": True, "int8_where": "none", "accuracy_level": 4,
          "prune_head": True, "share_embedding": True}
ADAPTER = {"alpha": 16.0, "targets": "all-linear", "dropout": 0.0, "epochs": 1.0, "steps": None, "batch_size": 8,
           "variant": "lora", "base_precision": "fp32"}


def value(value: float, half: float = 0.0, n: int = 1, **changes: Any) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": n, "measured_on": "artifact",
            "tier": "screen", **changes}


def trial(
    number: int, precision: str, rank: int, accuracy: float, latency: float, size: float, **changes: Any
) -> dict[str, Any]:
    """A complete, feasible trial off the front; ``changes`` replace fields."""
    return {
        "number": number, "adapter": f"adapter/{rank:032x}", "state": "COMPLETE",
        "params": {"rank": rank, "learning_rate": 0.0005, **ADAPTER, "precision": precision, **DEPLOY},
        "deploy_point": f"{precision}-b32",
        "values": {
            "accuracy": value(accuracy, 0.06, 128), "macro_f1": value(accuracy - 0.01, 0.07, 128),
            "latency_ms.p50": value(latency, 5, 20, measured_on="base"),
            "latency_ms.p95": value(latency * 1.1, 8, 20, measured_on="base", high=None),
            "ttft_ms.p50": value(latency / 2, 3, 20, measured_on="base"),
            "peak_rss_mb": value(size * 2.2, n=1, measured_on="base", low=None, high=None),
            "size_mb": value(size),
        },
        "feasible": True,
        "verdicts": {"accuracy >= 0.6": "PASS", "latency_ms.p95 <= 600": "INCONCLUSIVE"},
        "artifact": None, "on_front": False, "tied_with": None,
        "rungs": [{"step": 16, "valid_loss": 0.6, "accuracy": None}, {"step": 32, "valid_loss": 0.5, "accuracy": None}],
        "stages": {"train": {"key": f"adapter/{rank:032x}", "seconds": 110.0, "cached": number % 2 == 1},
                   "answers": {"key": f"answers/{number:032x}", "seconds": 9.0, "cached": False}},
        "reason": None, **changes,
    }


def document(**changes: Any) -> dict[str, Any]:
    """results.json of a small study: four trials, two of them on the front, trial 2 selected, no certificate."""
    return {
        "schema": "autotune/results@1",
        "study": {"name": "tone", "config_sha256": "0" * 64},
        "environment": {"autotune": "0.1.0", "python": "3.11.7", "platform": "Linux", "cpu": "a processor", "cores": 2,
                        "memory_gb": 25.3, "libraries": {"torch": "2.13.0", "onnxruntime": "1.32.0"}},
        "objectives": [{"name": "accuracy", "direction": "maximize", "unit": ""},
                       {"name": "latency_ms.p50", "direction": "minimize", "unit": "ms"},
                       {"name": "size_mb", "direction": "minimize", "unit": "MB"}],
        "constraints": [
            {"expr": "accuracy >= 0.6", "objective": "accuracy", "op": ">=", "unit": "", "bound": 0.6,
             "baseline": None},
            {"expr": "latency_ms.p95 <= 600", "objective": "latency_ms.p95", "op": "<=", "unit": "ms", "bound": 600.0,
             "baseline": None}],
        "dropped": [],
        "deploy_points": [],
        "baseline": None,
        "trials": [
            trial(0, "int4", 8, 0.70, 180, 210, on_front=True, artifact="artifacts/trial-0"),
            trial(1, "fp16", 8, 0.72, 450, 570),
            trial(2, "int8", 16, 0.75, 280, 340, on_front=True, artifact="artifacts/trial-2", tied_with=0),
            trial(3, "int4", 4, 0.50, 180, 210, feasible=False,
                  verdicts={"accuracy >= 0.6": "FAIL", "latency_ms.p95 <= 600": "INCONCLUSIVE"}),
        ],
        "front": [0, 2],
        "selected": {"trial": 2, "policy": "most-accurate", "certificate": None},
        "certificate": None,
        "nearest_miss": None,
        "cost": {"wall_s": 600.0, "seconds_by_stage": {"train": 330.0, "answers": 36.0}, "adapters_trained": 3,
                 "templates_built": 1, "artifacts_built": 4, "probes": 3},
        **changes,
    }


def write(folder: Path, **changes: Any) -> Path:
    """The folder with results.json, study.yaml and environment.json; ``changes`` replace fields of results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    found = document(**changes)
    study = {**studies.study(), "name": found["study"]["name"],
             "constraints": [c["expr"] for c in found["constraints"]]}
    (folder / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps(found["environment"]), encoding="utf-8")
    (folder / "study.yaml").write_text("# config_sha256: " + "0" * 64 + "\n" + yaml.safe_dump(study), encoding="utf-8")
    return folder
