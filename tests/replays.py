"""A made-up replay table that looks like a recorded one: curves, ridge, rounding losses and noise of a real size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

POINTS = (("fp16", 70.0, 540.0, 0.0), ("int8-b32", 45.0, 340.0, 0.002), ("int4-b32", 32.0, 215.0, 0.05),
          ("int4-b32-asym", 33.0, 222.0, 0.04), ("int4-b128", 30.0, 200.0, 0.07), ("int4-k_quant-b32", 32.5, 217.0,
          0.03), ("int4-k_quant-b32-int8head", 36.0, 301.0, 0.02), ("int4-k_quant-b32-int8mixed_layers", 37.0, 250.0,
          0.015))
RUNGS = (0.2, 0.4, 0.6, 0.8, 1.0)


def make_table(seed: int = 0, adapters: int = 48, valid: int = 374, test: int = 1000) -> dict[str, Any]:
    """Final accuracy 0.55–0.80 along a ridge of learning rate × scale; int4 costs 0.02–0.08, differing by adapter."""
    rng = np.random.default_rng(seed)
    hard = {"valid": rng.standard_normal(valid), "test": rng.standard_normal(test)}
    return {
        "schema": "autotune/replay-table@1", "provenance": {"command": "made up"}, "rungs": list(RUNGS),
        "rows": {"judged": valid, "valid": valid, "test": test},
        "points": [{"label": n, "params": {}, "latency_ms": {"p50": ms, "p95": ms * 1.1}, "size_mb": mb, "probe_s": 9.0,
                    "rounding": "fp32" if n == "fp16" else n} for n, ms, mb, _ in POINTS],
        "adapters": [_adapter(rng, hard, first) for first in range(adapters)],
    }


def _adapter(rng: np.random.Generator, hard: dict[str, Any], number: int) -> dict[str, Any]:
    experts = [(16, 1.0, 5e-4, "all-linear"), (16, 2.0, 2e-4, "all-linear"), (8, 2.0, 5e-4, "attention"),
               (32, 1.0, 1e-3, "all-linear")]
    if number < len(experts):
        rank, scale, rate, targets = experts[number]
        dropout, epochs, batch = 0.0, 2.0, 8
    else:
        rank = round(2 ** rng.uniform(2, 7))
        scale, rate = float(2 ** rng.uniform(-1, 2)), float(10 ** rng.uniform(-4, math.log10(2e-3)))
        targets = str(rng.choice(["all-linear", "attention", "mlp"]))
        dropout, epochs = float(rng.choice([0.0, 0.05])), float(rng.choice([1.0, 2.0]))
        batch = int(rng.choice([8, 16]))
    off = math.log10(rate * scale / 8e-4)
    latent = (0.85 - 0.75 * off**2 - {"all-linear": 0, "attention": 0.25, "mlp": 0.15}[targets] - 0.15 * (epochs == 1)
              - 0.12 * (batch == 16) - 0.04 * abs(math.log2(rank / 32)) + 0.08 * rng.standard_normal())
    slow = 0.5 + 0.6 * rng.random() + 0.4 * max(0.0, -off)
    rounding = {n: loss * 3.2 * (0.6 + 0.8 * rng.random()) for n, _, _, loss in POINTS}
    steps = int(1600 * epochs / batch)
    seconds = steps * (0.45 if batch == 8 else 0.8) * {"all-linear": 1.0, "attention": 0.75, "mlp": 0.85}[targets]
    own = {k: rng.standard_normal(len(v)) for k, v in hard.items()}

    def right(split: str, quality: float) -> str:
        chance = quality + 0.8 * hard[split] + 0.45 * own[split] + 0.4 * rng.standard_normal(len(hard[split]))
        return "".join("1" if c > 0 else "0" for c in chance)

    rungs, lost_by = [], {"fp32": 0.0, **{n: lost for n, lost in rounding.items() if n != "fp16"}}
    for fraction in RUNGS:
        now = latent - slow * math.exp(-3.0 * fraction)
        rungs.append({
            "step": round(steps * fraction), "seconds": seconds / 5,
            "valid_loss": 1.2 - 0.5 * now + 0.02 * rng.random(),
            "judged": {n: {"right": right("valid", now - lost), "loss": 1.2 - 0.5 * (now - lost), "seconds": 4.5}
                       for n, lost in lost_by.items()},
        })
    end = latent - slow * math.exp(-3.0)
    return {
        "params": {"rank": rank, "alpha": rank * scale, "learning_rate": rate, "targets": targets, "dropout": dropout,
                   "epochs": epochs, "batch_size": batch},
        "steps": steps, "failed": None, "rungs": rungs,
        "final": {n: {"valid": right("valid", end - lost), "test": right("test", end - lost), "assemble_s": 3.0,
                      "score_s": 14.0 + ms / 4} for (n, ms, _, _), lost in zip(POINTS, rounding.values(), strict=True)},
    }
