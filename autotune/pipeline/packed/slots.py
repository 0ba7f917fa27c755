"""One adapter of those that train together: its own state, random numbers and place in the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch

from autotune.pipeline.batching import endless_batches
from autotune.pipeline.packed.job import AdapterJob
from autotune.pipeline.packed.sites import Matrices, Site, find_sites
from autotune.pipeline.peft_format import lora_scale
from autotune.pipeline.recipe import TrainingState
from autotune.pipeline.tokens import Example, TokenizedData


class Slot:
    """``number`` is the job's place among all; ``matrices`` are None until made, and while they are in a stack."""

    def __init__(self, number: int, job: AdapterJob, model: Any, suffixes: Sequence[str], data: TokenizedData) -> None:
        self.number, self.job = number, job
        self.sites: tuple[Site, ...] = tuple(find_sites(model, suffixes))
        self.modules = frozenset(site.name for site in self.sites)
        self.state = TrainingState(job.params, len(data.train), model.config.vocab_size, bool(data.valid))
        self.rng = torch.Generator()
        self.seconds = 0.0
        self.matrices: Matrices | None = None
        self.examples: list[Example] = []
        self._train = data.train
        self._batches: Iterator[list[Example]] = iter(())

    @property
    def rank(self) -> int:
        return self.job.params.rank

    @property
    def scale(self) -> float:
        return lora_scale(self.job.params)

    @property
    def last_step(self) -> int:
        """The step to stop after."""
        until = self.job.until
        return self.state.steps if until is None else min(until, self.state.steps)

    @property
    def finished(self) -> bool:
        return self.state.step >= self.last_step

    @property
    def pauses(self) -> bool:
        """Whether it ends before its last step. What it is worth there is judged elsewhere, if at all."""
        return self.last_step < self.state.steps

    @property
    def probe_due(self) -> bool:
        """Whether the curve wants a point now and lacks it."""
        curve = self.state.curve
        return self.state.probes and not (curve and curve[-1][0] == self.state.step)

    def start(self) -> None:
        """On to the examples of the first step, or of the next one after those already done."""
        batches = endless_batches(self._train, self.job.params.batch_size, self.job.seed)
        self._batches = islice(batches, self.state.step, None)
        self.advance()

    def advance(self) -> None:
        """On to the examples of the next step."""
        self.examples = next(self._batches)
