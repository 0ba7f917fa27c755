"""Adapters with different everything, trained together and alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from autotune.pipeline.frozen_base import load_frozen
from autotune.pipeline.packed.job import AdapterJob
from autotune.pipeline.peft_training import train_through_peft
from autotune.pipeline.recipe import TrainingState
from search_spaces.adapter import AdapterParams
from tests.test_train import DATA, PARAMS

#: Rank, alpha, dropout, targets, learning rate, scale, number of steps and batch size all differ; so do the seeds.
DIFFERENT = (
    PARAMS,
    replace(PARAMS, rank=4, alpha=4, dropout=0.1, targets="qv", learning_rate=5e-3, steps=9, batch_size=2),
    replace(PARAMS, rank=16, variant="rslora", targets="mlp", learning_rate=1e-3, steps=15),
    replace(PARAMS, rank=2, dropout=0.3, steps=None, epochs=4.0, batch_size=3),
    replace(PARAMS, rank=5, alpha=7.5, targets="attention", learning_rate=1e-2, steps=20),
)
STOPS_AT = 7  # the last of them, in `jobs`


def jobs(folder: Path, params: Sequence[AdapterParams] = DIFFERENT, until: int | None = None) -> list[AdapterJob]:
    made = [AdapterJob(own, folder / str(i), seed=3 + i) for i, own in enumerate(params)]
    return [*made[:-1], replace(made[-1], until=until)]


def frozen(base: Path, dtype: torch.dtype = torch.float32) -> Any:
    return copy.deepcopy(_loaded(base)).to(dtype)


@cache
def _loaded(base: Path) -> Any:
    return load_frozen(base, "fp32", "cpu")


def alone(model: Any, base: Path, job: AdapterJob, out: Path) -> tuple[TrainingState, float, dict[str, torch.Tensor]]:
    """All steps of the job through PEFT: its state, validation loss and matrices."""
    state, valid_loss = train_through_peft(model, base, DATA, job.params, out, job.seed)
    return state, valid_loss, weights(out)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest relative difference, by norm, of any matrix."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).norm() / other[name].norm()) for name in other)
