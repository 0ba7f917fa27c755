"""Dropout on the inputs of LoRA matrices, each adapter's from its own random numbers, whatever it is packed with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class Dropout:
    """One adapter's: its rate, its generator, the modules it adapts, and its rows and their padded length alone."""

    rate: float
    rng: torch.Generator
    modules: frozenset[str]
    rows: int
    width: int


class Place(Protocol):
    """A module with LoRA matrices: its name in the model, and its number among its like."""

    name: str
    number: torch.Tensor


class Noise(Protocol):
    def of(self, z: torch.Tensor, place: Place) -> torch.Tensor:
        """Factors for the input [rows, tokens, features] of a module: 0, or 1 / (1 - rate)."""


class DrawnNoise:
    """What ``torch.nn.Dropout`` draws on a CPU after the same seed, for the adapter's own rows and length."""

    def __init__(self, adapters: Sequence[Dropout]) -> None:
        self._adapters = adapters

    def of(self, z: torch.Tensor, place: Place) -> torch.Tensor:
        noise = torch.ones_like(z, requires_grad=False)
        start = 0
        for adapter in self._adapters:
            end = start + adapter.rows
            if adapter.rate and place.name in adapter.modules:
                keep = 1 - adapter.rate
                drawn = z.new_empty(adapter.rows, adapter.width, z.shape[-1]).bernoulli_(keep, generator=adapter.rng)
                noise[start:end, : adapter.width] = drawn.div_(keep)
            start = end
        return noise


class HashedNoise:
    """Numbers from the place of each feature: a few operations on a GPU for all adapters, and none of them in turn.

    An adapter draws one number a step. That, the module's number, the row, token and feature are mixed by
    the 32-bit hash of C. Wellons ("lowbias32", https://nullprogram.com/blog/2018/07/31/), so that
    neither padding nor company changes what an adapter gets.
    """

    def __init__(self, adapters: Sequence[Dropout], device: torch.device) -> None:
        drawn = [int(torch.randint(2**31, (), generator=a.rng)) if a.rate else 0 for a in adapters]
        rows = torch.tensor([a.rows for a in adapters])
        seeds = torch.tensor(drawn, dtype=torch.int32)
        rates = torch.tensor([a.rate for a in adapters])
        row = torch.cat([torch.arange(a.rows, dtype=torch.int32) for a in adapters])
        self.seed = seeds.repeat_interleave(rows).to(device)
        self.row = row.to(device)
        self.rate = rates.repeat_interleave(rows).to(device)

    def of(self, z: torch.Tensor, place: Place) -> torch.Tensor:
        tokens = torch.arange(z.shape[1], dtype=torch.int32, device=z.device)
        features = torch.arange(z.shape[2], dtype=torch.int32, device=z.device)
        row = _mix(_mix(self.seed + place.number.int() * _STEP) + self.row)
        token = _mix(row[:, None] + tokens)
        drawn = _mix(token[:, :, None] + features * _STEP) & 0x7FFFFFFF
        rate = self.rate[:, None, None]
        return torch.where(drawn >= rate * 2.0**31, 1 / (1 - rate), 0.0).to(z.dtype)


#: 2^32 / golden ratio, as a signed number: steps of it spread well.
_STEP = 0x9E3779B9 - 2**32


def _mix(x: torch.Tensor) -> torch.Tensor:
    """lowbias32 of int32 values, whose products wrap around."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * (0x846CA68B - 2**32)
    return x ^ ((x >> 16) & 0xFFFF)
