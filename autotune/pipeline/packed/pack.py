"""Adapters in one stack, and a training step of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from autotune.pipeline.batching import backward_answer_losses
from autotune.pipeline.packed.batch import PackedBatch, pack
from autotune.pipeline.packed.dropout import DrawnNoise, Dropout, HashedNoise
from autotune.pipeline.packed.sites import Matrices, Site
from autotune.pipeline.packed.slots import Slot
from autotune.pipeline.packed.stack import Stack

#: Leaves the batch's gradient in the stack in the model, and gives the losses [adapters].
Backward = Callable[[Any, Stack, PackedBatch], torch.Tensor]


def plain_backward(model: Any, stack: Stack, batch: PackedBatch) -> torch.Tensor:
    shared = stack.shared
    shared.groups, shared.noise = batch.groups, batch.noise
    stack.grads.zero_()
    try:
        return backward_answer_losses(model, batch.batch, batch.parts)
    finally:
        shared.groups = shared.noise = None


class Pack:
    """At most ``capacity`` slots, the i-th in row i of the stack."""

    def __init__(
        self, model: Any, sites: tuple[Site, ...], rank: int, capacity: int, backward: Backward = plain_backward
    ) -> None:
        self.slots: list[Slot] = []
        self.stack = Stack(model, sites, rank, capacity, widens(model))
        self._model, self._backward = model, backward
        self._next: tuple[list[Slot], PackedBatch] | None = None

    def add(self, slot: Slot, matrices: Matrices) -> None:
        self.stack.put(len(self.slots), matrices, slot.scale, slot.state.step)
        self.slots.append(slot)
        self.stack.use(len(self.slots))

    def drop(self, slot: Slot) -> None:
        row = self.slots.index(slot)
        self.stack.move(len(self.slots) - 1, row)
        self.slots[row] = self.slots[-1]
        self.slots.pop()
        self.stack.use(len(self.slots))

    def matrices(self, slot: Slot) -> Matrices:
        return self.stack.take(self.slots.index(slot), slot.sites, slot.rank)

    def step(self) -> tuple[list[float], list[float], PackedBatch]:
        """Train every slot by one step; gives losses and gradients' norms by slot, and the batch they are of.

        All slots are then at their next examples. After running out of memory, none has changed.
        """
        batch = self._batch()
        drawing = [(slot, slot.rng.get_state()) for slot in self.slots if slot.job.params.dropout]
        try:
            figures = self._train(batch)
        except BaseException:
            for slot, state in drawing:
                slot.rng.set_state(state)
            raise
        for slot in self.slots:
            slot.advance()
        self._prepare()
        losses, norms = figures.tolist()
        return losses, norms, batch

    def choose(self, slots: Sequence[Slot]) -> None:
        """The model's rows are those of these slots alone; of all again where these are all."""
        rows = [self.slots.index(slot) for slot in slots]
        everyone = rows == list(range(len(self.slots)))
        self.stack.shared.chosen = None if everyone else torch.tensor(rows, device=self._model.device)

    def _train(self, batch: PackedBatch) -> torch.Tensor:
        """Losses and norms [2, slots]. Memory is taken before the update alone."""
        losses = self._backward(self._model, self.stack, replace(batch, noise=self._noise(batch)))
        norms = self.stack.clip()
        figures = torch.stack([losses.to(norms.dtype), norms])
        self.stack.update([slot.state.next_rate() for slot in self.slots])
        return figures

    def _prepare(self) -> None:
        """Make the next batch while a GPU is still busy; without memory for it, in its own step."""
        with suppress(torch.OutOfMemoryError):
            self._next = (list(self.slots), self._pack())

    def _batch(self) -> PackedBatch:
        prepared, self._next = self._next, None
        return prepared[1] if prepared is not None and prepared[0] == self.slots else self._pack()

    def _pack(self) -> PackedBatch:
        return pack([slot.examples for slot in self.slots], self._model.device)

    def _noise(self, batch: PackedBatch) -> DrawnNoise | HashedNoise | None:
        if not any(slot.job.params.dropout for slot in self.slots):
            return None
        adapters = [
            Dropout(slot.job.params.dropout, slot.rng, slot.modules, rows, width)
            for slot, rows, width in zip(self.slots, batch.rows, batch.widths, strict=True)
        ]
        device = self._model.device
        return HashedNoise(adapters, device) if device.type == "cuda" else DrawnNoise(adapters)


def widens(model: Any) -> bool:
    """Whether small products take fp32 inputs: on a CPU with a base in bf16."""
    return bool(model.device.type == "cpu" and model.dtype == torch.bfloat16)
