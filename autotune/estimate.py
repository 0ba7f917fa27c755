"""What a study will take, before it starts: minutes, disk and memory. Arithmetic on known sizes, no work."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.pipeline.architectures import ModelFacts
from autotune.pipeline.tokens import TokenizedData
from search_spaces.deploy import QUANTIZED, DeployParams

#: Shares of the measured matmul rate that a step and a prompt reach (measured on 2 AVX2 cores).
_TRAINING_EFFICIENCY = 0.6
_SCORING_EFFICIENCY = 0.35
_BUILD_S_PER_GB = 14.0
_FIXED_S_PER_TRIAL = 8.0
_BITS = {"fp32": 32.0, "bf16": 16.0, "fp16": 16.0, "int8": 8.0, "int4": 4.0}


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes; ``memory`` is the peak of the hungriest stage, ``misfits`` what will not fit."""

    adapters: int
    trials: int
    seconds_per_adapter: float
    seconds_per_trial: float
    seconds: float
    disk: float
    memory: float
    misfits: tuple[str, ...]


def artifact_bytes(facts: ModelFacts, point: DeployParams) -> float:
    """Weights at the point's bits plus its scales (an fp32 one a block)."""
    bits = _BITS[point.precision]
    if point.precision in QUANTIZED:
        bits += 32 / point.block_size + (0 if point.symmetric else 8 / point.block_size)
    return facts.parameters * bits / 8


def estimate(
    facts: ModelFacts, data: TokenizedData, points: tuple[DeployParams, ...], *, adapters: int, trials: int | None,
    epochs: float, steps: int | None, batch_size: int, gflops: float, prompt_tokens: int, new_tokens: int,
    samples: int, free_disk: float, free_memory: float,
) -> Estimate:
    """``epochs``, ``steps`` and ``batch_size`` are the space's typical ones; ``gflops`` this machine's rate."""
    body = facts.parameters - facts.embedding_parameters
    train_tokens = sum(len(e.prompt) + len(e.answer) for e in data.train)
    tokens = train_tokens * epochs if steps is None else train_tokens / len(data.train) * batch_size * steps
    # Forward 2, backward to the activations 2; the frozen weights need no gradient.
    training = tokens * 4 * body / (gflops * 1e9 * _TRAINING_EFFICIENCY)
    scored = sum(len(e.prompt) for e in data.valid) + samples * (prompt_tokens + 4 * new_tokens)
    base_bytes = facts.parameters * 4
    scoring = scored * 2 * body / (gflops * 1e9 * _SCORING_EFFICIENCY)
    building = _BUILD_S_PER_GB * base_bytes / 1e9
    per_trial = scoring + building + _FIXED_S_PER_TRIAL
    total_trials = min(adapters * len(points), trials or adapters * len(points))
    per_adapter = training + 2 * base_bytes / 1e9 + 10
    # The reference export is scored once, like one more trial.
    seconds = adapters * per_adapter + (total_trials + 1) * per_trial
    disk = 2 * base_bytes + 2 * base_bytes + sum(artifact_bytes(facts, p) for p in points)
    memory = max(1.5 * base_bytes, 3.2 * base_bytes) + 1.2e9
    misfits = []
    if disk > free_disk:
        misfits.append(f"disk: about {disk / 1e9:.1f} GB needed, {free_disk / 1e9:.1f} GB free")
    if memory > free_memory:
        misfits.append(f"memory: about {memory / 1e9:.1f} GB needed, {free_memory / 1e9:.1f} GB free")
    return Estimate(adapters, total_trials, per_adapter, per_trial, seconds, disk, memory, tuple(misfits))
