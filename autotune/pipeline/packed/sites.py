"""The frozen linear modules that adapters reach, and one adapter's matrices there at its own rank."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Site:
    """``name`` is the module's in the model; it maps ``inputs`` features to ``outputs``, by weights of ``dtype``."""

    name: str
    inputs: int
    outputs: int
    dtype: torch.dtype

    @property
    def names(self) -> tuple[str, str]:
        """Names of A and B, as PEFT has them behind its prefix."""
        return f"{self.name}.lora_A.weight", f"{self.name}.lora_B.weight"


@dataclass(frozen=True)
class Matrices:
    """An adapter's A [rank, inputs] and B [outputs, rank] by name, and AdamW's moments of each."""

    weights: Tensors
    exp_avg: Tensors
    exp_avg_sq: Tensors


def find_sites(model: Any, suffixes: Iterable[str]) -> list[Site]:
    """The modules of ``model`` whose names end in one of ``suffixes``, in the model's own order."""
    wanted = tuple(f".{suffix}" for suffix in suffixes)
    return [
        Site(name, module.in_features, module.out_features, module.weight.dtype)
        for name, module in model.named_modules()
        if name.endswith(wanted)
    ]


def master_dtype(model: Any) -> torch.dtype:
    """What adapters are kept in: fp32, and fp64 for a base in fp64."""
    return torch.float64 if model.dtype == torch.float64 else torch.float32


def fresh_matrices(sites: Sequence[Site], rank: int, dtype: torch.dtype, rng: torch.Generator) -> Matrices:
    """Untrained matrices of type ``dtype``: A uniform after Kaiming, B zero, drawn as PEFT draws them after seeding.

    PEFT makes two linear modules, which draw values of their own, before it draws A; and it rounds A to
    the type of the base's matrix where that is a floating one.
    """
    weights: Tensors = {}
    for site in sites:
        for shape in ((rank, site.inputs), (site.outputs, rank), (rank, site.inputs)):
            drawn = torch.nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5), generator=rng)
        down = (drawn.to(site.dtype) if site.dtype.is_floating_point else drawn).to(dtype)
        weights |= dict(zip(site.names, (down, torch.zeros(site.outputs, rank, dtype=dtype)), strict=True))
    return Matrices(weights, _zeros_like(weights), _zeros_like(weights))


def _zeros_like(tensors: Tensors) -> Tensors:
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
