"""One batch for several adapters: the rows of one after those of the other, padded to one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from autotune.pipeline.batching import Batch, Parts, make_batch
from autotune.pipeline.packed.dropout import Noise
from autotune.pipeline.packed.layers import Groups
from autotune.pipeline.tokens import Example

#: On a GPU lengths and numbers of answer tokens are rounded up to these, so that few shapes come up: each is
#: compiled, or captured as a graph, once.
_TOKENS, _ANSWERS = 32, 64
_IGNORED = -100  # the target that cross-entropy leaves out


@dataclass(frozen=True)
class PackedBatch:
    """``rows``, ``widths`` and ``tokens`` by adapter: its rows, their padded length alone, its ids without padding."""

    batch: Batch
    parts: Parts
    groups: Groups | None
    rows: tuple[int, ...]
    widths: tuple[int, ...]
    tokens: tuple[int, ...]
    noise: Noise | None = None


def pack(examples: Sequence[Sequence[Example]], device: torch.device) -> PackedBatch:
    """One batch of each adapter's next examples."""
    rows = tuple(len(own) for own in examples)
    lengths = [[len(e.prompt) + len(e.answer) for e in own] for own in examples]
    batch = make_batch([example for own in examples for example in own])
    adapter = torch.arange(len(rows)).repeat_interleave(torch.tensor(rows))
    of = adapter[batch.row]
    answers = torch.bincount(of, minlength=len(rows))
    if device.type == "cuda":
        batch, of = _round(batch, of)
    tensors = (batch.ids, batch.row, batch.column, batch.target, of, answers)
    ids, row, column, target, of, answers = (_move(tensor, device) for tensor in tensors)
    return PackedBatch(
        Batch(ids, row, column, target, batch.tokens),
        Parts(of, answers),
        _groups(rows, device),
        rows,
        tuple(max(own) for own in lengths),
        tuple(sum(own) for own in lengths),
    )


def _move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """To the device, without waiting for what it is busy with."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _round(batch: Batch, of: torch.Tensor) -> tuple[Batch, torch.Tensor]:
    """Up to whole multiples of length and of answers; what is added counts for nothing."""
    more_tokens = -batch.ids.shape[1] % _TOKENS
    more = -len(batch.target) % _ANSWERS
    ids = pad(batch.ids, (0, more_tokens))
    row, column, of = (pad(t, (0, more)) for t in (batch.row, batch.column, of))
    return Batch(ids, row, column, pad(batch.target, (0, more), value=_IGNORED), batch.tokens), of


def _groups(rows: Sequence[int], device: torch.device) -> Groups | None:
    most = max(rows)
    if min(rows) == most:
        return None
    gather, scatter = [], []
    start = 0
    for number, own in enumerate(rows):
        gather += [start + i if i < own else start for i in range(most)]
        scatter += [number * most + i for i in range(own)]
        start += own
    return Groups(_move(torch.tensor(gather), device), _move(torch.tensor(scatter), device))
