"""Estimates: bigger asks cost more, and what does not fit is said with both figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autotune.estimate import Estimate, artifact_bytes, estimate
from autotune.pipeline.architectures import ModelFacts
from autotune.pipeline.tokens import Example, TokenizedData
from search_spaces.deploy import DeployParams

FACTS = ModelFacts("Gemma3ForCausalLM", 268_000_000, 168_000_000, 18, 640, 262_144, True, 32_768, 512)
ROW = Example(tuple(range(30)), (1, 2), "", "")
DATA = TokenizedData("choice", False, 1, (ROW,) * 512, (ROW,) * 128, ())
POINTS = (DeployParams("fp16"), DeployParams("int8"), DeployParams("int4"))


def ask(**changes: Any) -> Estimate:
    usual: dict[str, Any] = {
        "adapters": 4, "trials": None, "epochs": 1.0, "steps": None, "batch_size": 8, "gflops": 150.0,
        "prompt_tokens": 64, "new_tokens": 8, "samples": 20, "free_disk": 80e9, "free_memory": 20e9,
    }
    return estimate(FACTS, DATA, POINTS, **{**usual, **changes})


def test_time_follows_adapters_more_than_trials() -> None:
    base = ask()
    assert base.trials == 12
    assert ask(adapters=8).seconds > 1.8 * base.seconds
    assert ask(epochs=3.0).seconds_per_adapter > 2 * base.seconds_per_adapter
    assert ask(gflops=300.0).seconds < base.seconds
    assert ask(trials=6).trials == 6


def test_sizes_follow_bits_and_scales() -> None:
    sizes = [artifact_bytes(FACTS, p) / 1e6 for p in POINTS]
    assert sizes == pytest.approx([536, 301.5, 167.5], rel=0.01)
    assert artifact_bytes(FACTS, replace(POINTS[2], block_size=128)) < artifact_bytes(FACTS, POINTS[2])


def test_what_will_not_fit_is_said_with_both_figures() -> None:
    assert ask().misfits == ()
    tight = ask(free_disk=1e9, free_memory=2e9).misfits
    assert any("disk" in m and "1.0 GB free" in m for m in tight)
    assert any("memory" in m and "2.0 GB free" in m for m in tight)
