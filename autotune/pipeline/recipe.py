"""The training recipe, whoever runs it: steps, learning rate, clipping, validation points, when a loss is lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from autotune.errors import TrainingError
from autotune.pipeline.tokens import Example
from search_spaces.adapter import AdapterParams

#: Gradients are clipped to this norm, adapter by adapter.
CLIP = 1.0
#: Added to the norm that gradients are divided by, as ``torch.nn.utils.clip_grad_norm_`` does.
CLIP_EPSILON = 1e-6
_WARMUP = 0.06
_VALID_EXAMPLES = 64
_SMOOTHING = 0.8


@dataclass(frozen=True)
class TrainResult:
    """``adapter`` is a folder in PEFT's format.

    ``losses[i]`` is the mean cross-entropy (nats) of the answer tokens of step i + 1's batch, before
    its update. ``valid_loss`` is that of at most 64 validation examples after training (NaN without
    any, and for a training that pauses); ``curve`` holds (step, loss) on every other one of them, so
    its points compare with each other and not with ``valid_loss``. ``tokens`` counts trained-on tokens
    without padding; ``seconds`` is all of it, loading and evaluation included; adapters that trained
    together share theirs out.
    """

    adapter: Path
    steps: int
    tokens: int
    seconds: float
    losses: tuple[float, ...]
    valid_loss: float
    curve: tuple[tuple[int, float], ...]


def schedule(step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate at step 1 … steps: up to 1 over the warm-up, then linearly down."""
    if step <= warmup:
        return step / warmup
    return (steps - step + 1) / (steps - warmup + 1)


def held_out(valid: Sequence[Example]) -> list[Example]:
    """The validation examples that losses are taken on; points of the curve use every other one of them."""
    return spread(valid, _VALID_EXAMPLES)


def spread(examples: Sequence[Example], count: int) -> list[Example]:
    """At most ``count`` examples, evenly spaced, always the same ones."""
    if len(examples) <= count:
        return list(examples)
    return [examples[i * len(examples) // count] for i in range(count)]


class TrainingState:
    """How far one adapter's training is. ``vocab`` is a number of tokens, ``has_valid`` whether rows are held out."""

    def __init__(self, params: AdapterParams, examples: int, vocab: int, has_valid: bool) -> None:
        self.params = params
        self.steps = params.training_steps(examples)
        self.losses: list[float] = []
        self.curve: list[tuple[int, float]] = []
        self.tokens = 0
        self._vocab = vocab
        self._smoothed: list[float] = []
        self._warmup = max(1, round(_WARMUP * self.steps))
        steps = self.steps
        self._probes = {steps // 4, steps // 2, 3 * steps // 4} if steps >= 8 and has_valid else set()

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    @property
    def probes(self) -> bool:
        """Whether the curve has a point at this step."""
        return self.step in self._probes

    def next_rate(self) -> float:
        return self.params.learning_rate * schedule(self.step + 1, self.steps, self._warmup)

    def add(self, loss: float, norm: float, tokens: int) -> None:
        """One more step. Raises TrainingError when its loss or gradient is not finite, or the loss diverges."""
        self._add_loss(loss)
        self.tokens += tokens
        self._require_finite(norm)
        smoothed = self._smoothed
        if self.step > self._warmup and smoothed[-1] > _highest_sane_loss(smoothed, self._vocab):
            raise TrainingError(f"the loss diverged {self._place()}, {smoothed[-1]:.3g} now)")

    def resume(self, losses: Sequence[float], curve: Sequence[tuple[int, float]], tokens: int) -> None:
        """Go on after steps that gave these."""
        for loss in losses:
            self._add_loss(loss)
        self.curve = [(step, loss) for step, loss in curve]
        self.tokens = tokens

    def finish(self, valid_loss: float) -> None:
        """Raises TrainingError when the validation loss after training is not finite."""
        if not math.isfinite(valid_loss):
            raise TrainingError(f"the validation loss is {valid_loss} after training ({self._rate()})")

    def _add_loss(self, loss: float) -> None:
        self.losses.append(loss)
        before = self._smoothed
        before.append(_SMOOTHING * before[-1] + (1 - _SMOOTHING) * loss if before else loss)

    def _require_finite(self, norm: float) -> None:
        loss = self.losses[-1]
        if not math.isfinite(loss):
            raise TrainingError(f"the loss became {loss} {self._place()})")
        if not math.isfinite(norm):
            raise TrainingError(f"the gradient became {norm} {self._place()}, {loss:.3g} now)")

    def _place(self) -> str:
        """The middle of a sentence, its bracket still open."""
        first = f"loss {self.losses[0]:.3g} at the first step"
        return f"at step {self.step} of {self.steps} ({self._rate()}; {first}"

    def _rate(self) -> str:
        return f"learning rate {self.params.learning_rate:g}"


def _highest_sane_loss(smoothed: Sequence[float], vocab: int) -> float:
    """The smoothed loss above which training has diverged.

    Three times the lowest so far, or clearly worse than both the start and a guess among all tokens
    alike (ln vocab), whichever is less; never below 2 nats, where batches alone differ that much.
    """
    return max(2.0, min(3 * min(smoothed), 1.25 * max(smoothed[0], math.log(vocab))))


def is_out_of_memory(error: BaseException) -> bool:
    words = str(error).lower()
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or "can't allocate memory" in words or "not enough memory" in words


def out_of_memory(params: AdapterParams) -> TrainingError:
    return TrainingError(
        f"out of memory while training (batch size {params.batch_size}, rank {params.rank}, "
        f"base precision {params.base_precision}); a smaller batch or base_precision nf4 needs less"
    )
