"""The loop: fill free places from the queue, train a step, look at those that are due, until all have finished."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch

from autotune.errors import TrainingError
from autotune.pipeline.architectures import require_supported, target_modules
from autotune.pipeline.batching import mean_loss, packed_example_losses, set_training
from autotune.pipeline.packed import checkpoint
from autotune.pipeline.packed.batch import PackedBatch
from autotune.pipeline.packed.batch import pack as pack_batch
from autotune.pipeline.packed.job import AdapterJob
from autotune.pipeline.packed.pack import Pack, plain_backward
from autotune.pipeline.packed.sites import Matrices, fresh_matrices, master_dtype
from autotune.pipeline.packed.slots import Slot
from autotune.pipeline.packed.speed import Quickening, Speed, fast_attention
from autotune.pipeline.packed.width import WidthSearch, depends_on_length, plan_on_gpu, saved_bytes, widest
from autotune.pipeline.progress import Report, silent
from autotune.pipeline.recipe import TrainResult, held_out, is_out_of_memory, out_of_memory
from autotune.pipeline.tokens import Example, TokenizedData

#: Bytes of an adapter's parameter: itself, its gradient and two moments, in fp32.
_PARAMETER_BYTES = 16
#: Bytes are aligned for matrix units of a GPU in multiples of this rank.
_RANKS = 8
#: Steps whose seconds say nothing about those to come.
_WARM_UP = 5


def train_packed(
    model: Any, base: Path, data: TokenizedData, jobs: Sequence[AdapterJob], *, report: Report = silent,
    width: int | None = None, speed: Speed = "auto",
) -> list[TrainResult | TrainingError]:
    """Train adapters on the frozen ``model`` of the folder ``base``, as many together as is best, or ``width``.

    Each result, in the order of ``jobs``, is what training that job alone gives; one that fails costs the
    others nothing. The model is as before afterwards. Running out of memory halves the number that train
    together; those put aside go on later from where they were.
    """
    engine = _Engine(model, base, data, jobs, report, speed)
    try:
        return engine.run(width)
    finally:
        engine.close()


class _Engine:
    def __init__(
        self, model: Any, base: Path, data: TokenizedData, jobs: Sequence[AdapterJob], report: Report, speed: Speed
    ) -> None:
        family = require_supported(base)
        self._model, self._base, self._data, self._report = model, base, data, report
        self._queue = deque(
            Slot(number, job, model, target_modules(family, job.params.targets), data)
            for number, job in enumerate(jobs)
        )
        self._jobs = len(jobs)
        self._results: dict[int, TrainResult | TrainingError] = {}
        self._seconds = [0.0] * len(jobs)
        self._valid = held_out(data.valid)
        self._pack: Pack | None = None
        self._width = 1
        self._search: WidthSearch | None = None
        self._filling = False
        self._done, self._total = 0, sum(slot.last_step for slot in self._queue)
        self._quick = Quickening(model, speed)

    def run(self, width: int | None) -> list[TrainResult | TrainingError]:
        longest = _length(max((*self._data.train, *self._valid), key=_length))
        with fast_attention(self._model, longest):
            self._width = width or self._plan(longest)
            set_training(self._model, True)
            while self._queue or self._slots:
                self._advance()
        found = [self._results[number] for number in range(self._jobs)]
        pairs = zip(found, self._seconds, strict=True)
        return [replace(r, seconds=s) if isinstance(r, TrainResult) else r for r, s in pairs]

    def close(self) -> None:
        self._quick.close()
        self._unpack()

    def _unpack(self) -> None:
        if self._pack is not None:
            self._pack.stack.remove()
            self._pack = None

    @property
    def _slots(self) -> list[Slot]:
        return list(self._pack.slots) if self._pack is not None else []

    def _advance(self) -> None:
        """One turn of the loop. What runs out of memory is tried again with half of the adapters."""
        began, failed = time.monotonic(), False
        slots = self._slots
        try:
            self._fill()
            slots = self._slots
            if not self._settle():
                self._step()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = True
        # Outside of the block above, which keeps alive whatever the error has seen.
        if failed:
            self._shrink()
        for slot in slots:
            self._seconds[slot.number] += (time.monotonic() - began) / len(slots)

    def _fill(self) -> None:
        """Take from the queue while there are places."""
        self._filling = True
        while self._queue and len(self._slots) < self._width:
            slot = self._queue[0]
            if self._pack is None or not self._takes(self._pack, slot):
                self._put_aside()
                slot = self._queue[0]
                # At width 1 for the next in the queue alone, else for everyone in it.
                self._pack = self._new_pack([slot] if self._width == 1 else self._queue, self._width)
                continue
            try:
                slot.matrices = self._matrices(slot)
            except TrainingError as error:
                self._queue.popleft()
                self._end(slot, error)
                continue
            self._pack.add(slot, slot.matrices)
            slot.matrices = None
            self._queue.popleft()
        self._filling = False

    def _takes(self, pack: Pack, slot: Slot) -> bool:
        """Whether there is a place; at width 1 only one that is no wider than the adapter needs."""
        stack = pack.stack
        if self._width == 1:
            return not pack.slots and stack.rank == self._held_rank([slot]) and stack.sites == slot.sites
        return len(pack.slots) < stack.capacity and stack.holds(slot.sites, slot.rank)

    def _new_pack(self, slots: Collection[Slot], width: int) -> Pack:
        """An empty pack that each of these fits into."""
        sites = tuple(dict.fromkeys(site for slot in slots for site in slot.sites))
        return Pack(self._model, sites, self._held_rank(slots), min(width, len(slots)), self._quick.backward)

    def _held_rank(self, slots: Collection[Slot]) -> int:
        """The rank that holds all of these; on a GPU a multiple that its matrix units take at full speed."""
        rank = max(slot.rank for slot in slots)
        return rank + -rank % _RANKS if self._model.device.type == "cuda" else rank

    def _put_aside(self) -> None:
        """All adapters in training back to the front of the queue, as they are; the model without any."""
        if self._pack is not None:
            for slot in reversed(self._pack.slots):
                slot.matrices = self._pack.matrices(slot)
                self._queue.appendleft(slot)
            self._unpack()

    def _matrices(self, slot: Slot) -> Matrices:
        """Those it was put aside with, a checkpoint's, or fresh ones."""
        if slot.matrices is not None:
            return slot.matrices
        if slot.job.resume is not None:
            matrices = checkpoint.resume(slot, slot.job.resume)
            self._total -= slot.state.step
        else:
            slot.rng.manual_seed(slot.job.seed)
            matrices = fresh_matrices(slot.sites, slot.rank, master_dtype(self._model), slot.rng)
        slot.start()
        return matrices

    def _step(self) -> None:
        pack = self._pack
        if pack is None or not pack.slots:
            return
        began, slots = time.monotonic(), self._slots
        watch = self._search is not None and self._done == 0
        with saved_bytes(self._model) if watch else nullcontext(lambda: 0) as saved:
            losses, norms, batch = pack.step()
        for slot, loss, norm, tokens in zip(slots, losses, norms, batch.tokens, strict=True):
            try:
                slot.state.add(loss, norm, tokens)
            except TrainingError as error:
                self._end(slot, error)
        self._done += len(slots)
        self._say(slots, losses)
        seconds = time.monotonic() - began
        if self._done > _WARM_UP * len(slots):
            self._quick.consider(seconds * (self._total - self._done) / len(slots))
        if self._search is not None:
            if watch:
                self._search.limit(self._affordable(pack, batch, saved()))
            self._widen(self._search.add(len(slots), seconds, sum(batch.tokens)))

    def _say(self, slots: Sequence[Slot], losses: Sequence[float]) -> None:
        if self._jobs == 1 and not self._results:
            state = slots[0].state
            self._report(self._done, self._total, f"step {state.step}/{state.steps} loss {losses[0]:.2f}")
        elif self._jobs > 1:
            mean = sum(losses) / len(losses)
            self._report(self._done, self._total, f"{len(slots)} at once, mean loss {mean:.2f}")

    def _settle(self) -> bool:
        """Points of the curve that are due, and the end of those that have finished; False where nobody was due."""
        probing = [slot for slot in self._slots if slot.probe_due]
        for slot, losses in self._evaluate(probing, self._valid[::2]):
            slot.state.curve.append((slot.state.step, mean_loss(losses)))
        ending = [slot for slot in self._slots if slot.finished]
        pausing: list[tuple[Slot, list[tuple[float, int]]]] = [(slot, []) for slot in ending if slot.pauses]
        for slot, losses in [*pausing, *self._evaluate([s for s in ending if not s.pauses], self._valid)]:
            try:
                self._end(slot, self._finish(slot, losses))
            except TrainingError as error:
                self._end(slot, error)
        return bool(probing or ending)

    def _evaluate(
        self, slots: Sequence[Slot], examples: Sequence[Example]
    ) -> list[tuple[Slot, list[tuple[float, int]]]]:
        """Each slot's losses on the examples, all in one pass."""
        if not slots or self._pack is None:
            return []
        self._pack.choose(slots)
        try:
            losses = packed_example_losses(self._model, examples, len(slots))
        finally:
            self._pack.choose(self._pack.slots)
        return list(zip(slots, losses, strict=True))

    def _finish(self, slot: Slot, losses: list[tuple[float, int]]) -> TrainResult:
        state, curve = slot.state, list(slot.state.curve)
        if losses:
            state.finish(mean_loss(losses))
            curve.append((state.step, mean_loss(losses[::2])))
        assert self._pack is not None
        checkpoint.save(slot, self._pack.matrices(slot), self._base)
        return TrainResult(
            slot.job.out, state.step, state.tokens, 0.0, tuple(state.losses), mean_loss(losses), tuple(curve)
        )

    def _end(self, slot: Slot, result: TrainResult | TrainingError) -> None:
        if self._pack is not None and slot in self._pack.slots:
            self._pack.drop(slot)
        self._total -= slot.last_step - slot.state.step
        self._results[slot.number] = result

    def _shrink(self) -> None:
        """Half as many together; one that is alone cannot be trained."""
        alone = min(self._width, len(self._slots) + len(self._queue)) if self._filling else len(self._slots)
        gc.collect()
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        self._put_aside()
        if alone <= 1:
            slot = self._queue.popleft()
            self._end(slot, out_of_memory(slot.job.params))
        else:
            self._width = alone // 2
            if self._search is not None:
                self._search.limit(self._width)

    def _widen(self, width: int) -> None:
        if width < self._width:
            self._put_aside()
        self._width = width

    def _plan(self, longest: int) -> int:
        """How many to train together to begin with."""
        if self._jobs == 1 or depends_on_length(self._model.config, longest):
            return 1
        if self._model.device.type == "cuda":
            return plan_on_gpu(self._peak, self._model.device, self._jobs)
        self._search = WidthSearch(self._jobs)
        return 1

    def _peak(self, count: int) -> int:
        """Bytes that a step of ``count`` adapters takes at most, on the longest rows there are."""
        device = self._model.device
        rows = max(slot.job.params.batch_size for slot in self._queue)
        longest = sorted(self._data.train, key=_length)[-rows:]
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        pack = self._new_pack(self._queue, count)
        try:
            pack.stack.use(count)
            plain_backward(self._model, pack.stack, pack_batch([longest] * count, device))
        finally:
            pack.stack.remove()
        return int(torch.cuda.max_memory_allocated(device)) - before

    def _affordable(self, pack: Pack, batch: PackedBatch, saved: int) -> int:
        """How many fit into the memory of a CPU, given the bytes that one adapter's batch kept for its backward."""
        rows = max(slot.job.params.batch_size for slot in (*pack.slots, *self._queue))
        longest = max(_length(example) for example in self._data.train)
        each = saved * rows * longest / batch.batch.ids.numel() + _PARAMETER_BYTES * pack.stack.size
        return widest(0.0, each, psutil.virtual_memory().available)


def _length(example: Example) -> int:
    return len(example.prompt) + len(example.answer)
