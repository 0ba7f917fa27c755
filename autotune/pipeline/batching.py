"""Batches of examples of similar length, and the loss on their answer tokens alone.

Batches are padded on the right. In a causal model a token sees only what stands before it, so padding
behind an example cannot reach it: no attention mask is given (attention without one is a tenth faster
on a CPU), positions count from zero as they should, and what the model makes of padding is never read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from autotune.pipeline.tokens import Example

#: Batches sorted by length together: enough to lose little to padding, few enough to stay random.
_BATCHES_PER_WINDOW = 16
#: Logits held at once, so that long answers on a large vocabulary fit in memory (256 MB in fp32).
_MAX_LOGITS = 1 << 26


@dataclass(frozen=True)
class Batch:
    """``ids`` [rows, longest]; logits are wanted at (``row``, ``column``) [n], where ``target`` [n] is next.

    ``tokens`` counts ids without padding.
    """

    ids: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    target: torch.Tensor
    tokens: int


@dataclass(frozen=True)
class Parts:
    """A batch under several losses: answer position i is one of the ``answers[part]`` of part ``of[i]`` [n]."""

    of: torch.Tensor
    answers: torch.Tensor

    @classmethod
    def whole(cls, batch: Batch) -> Parts:
        """One loss, the mean over all answer positions."""
        return cls(torch.zeros_like(batch.target), batch.target.new_tensor([len(batch.target)]))


def make_batch(examples: Sequence[Example], device: torch.device | str = "cpu") -> Batch:
    """Pad examples to one length. Every answer must be non-empty and every prompt hold at least one token."""
    lengths = [len(e.prompt) + len(e.answer) for e in examples]
    ids = torch.zeros((len(examples), max(lengths)), dtype=torch.long)
    row: list[int] = []
    column: list[int] = []
    target: list[int] = []
    for i, example in enumerate(examples):
        ids[i, : lengths[i]] = torch.tensor(example.prompt + example.answer)
        first = len(example.prompt) - 1
        row += [i] * len(example.answer)
        column += range(first, first + len(example.answer))
        target += example.answer
    at_row, at_column, wanted = (torch.tensor(values, device=device) for values in (row, column, target))
    return Batch(ids.to(device), at_row, at_column, wanted, tokens=sum(lengths))


def plan_epoch(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of one epoch's batches: every example once, similar lengths together, order random.

    Shuffle, sort within windows of some batches, shuffle the batches. Equal arguments give equal
    batches on every machine. The last batch may be incomplete.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    window = batch_size * _BATCHES_PER_WINDOW
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=lambda i: lengths[i])
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    rng.shuffle(batches)
    return batches


def endless_batches(examples: Sequence[Example], batch_size: int, seed: int) -> Iterator[list[Example]]:
    """Epoch after epoch, each in an order of its own."""
    lengths = [len(e.prompt) + len(e.answer) for e in examples]
    epoch = 0
    while True:
        for indices in plan_epoch(lengths, batch_size, seed, epoch):
            yield [examples[i] for i in indices]
        epoch += 1


def _hidden(model: Any, batch: Batch) -> torch.Tensor:
    """The decoder's output [n, hidden] where the next token is an answer token."""
    output = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    place = batch.row * output.shape[1] + batch.column
    hidden: torch.Tensor = output.flatten(0, 1).index_select(0, place)
    return hidden


def head_logits(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """fp32 logits [n, vocab] of decoder outputs [n, hidden], as the model's own forward makes them.

    Beyond the head's matrix, Granite divides (``logits_scaling``) and Gemma bends them
    (``final_logit_softcapping``). A model in fp64 keeps its fp64.
    """
    logits: torch.Tensor = model.lm_head(hidden)
    scaling = getattr(model.config, "logits_scaling", None)
    if scaling is not None:
        logits = logits / scaling
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    return logits if logits.dtype == torch.float64 else logits.float()


def _chunk(model: Any) -> int:
    return max(1, _MAX_LOGITS // int(model.config.vocab_size))


def backward_answer_loss(model: Any, batch: Batch) -> float:
    """Mean cross-entropy of the batch's answer tokens; adds its gradient to the trainable parameters.

    A loss that is not finite leaves the gradients alone.
    """
    hidden = _hidden(model, batch)
    loss, gradient = _losses_and_gradient(model, hidden, batch, Parts.whole(batch))
    if torch.isfinite(loss).all():
        hidden.backward(gradient)  # type: ignore[no-untyped-call]
    return float(loss)


def backward_answer_losses(model: Any, batch: Batch, parts: Parts) -> torch.Tensor:
    """Each part's mean cross-entropy [parts]; adds the gradient of their sum, whatever its value.

    Parts share no row, so that each gets the gradient it would have alone.
    """
    hidden = _hidden(model, batch)
    losses, gradient = _losses_and_gradient(model, hidden, batch, parts)
    hidden.backward(gradient)  # type: ignore[no-untyped-call]
    return losses


def _losses_and_gradient(
    model: Any, hidden: torch.Tensor, batch: Batch, parts: Parts
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses [parts] of the decoder's outputs [n, hidden], and the gradient of their sum with respect to these.

    The frozen head's part of the gradient is made chunk by chunk and the decoder's in one go, so that
    logits exist for a chunk of answer positions at a time and for no other position.
    """
    gradient = torch.empty_like(hidden)
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    losses = torch.zeros(len(parts.answers), device=hidden.device, dtype=dtype)
    answers = parts.answers[parts.of]
    size = _chunk(model)
    for start in range(0, len(batch.target), size):
        part = slice(start, start + size)
        leaf = hidden[part].detach().requires_grad_()
        each = cross_entropy(head_logits(model, leaf), batch.target[part], reduction="none") / answers[part]
        (gradient[part],) = torch.autograd.grad(each.sum(), leaf)
        losses.index_add_(0, parts.of[part], each.detach())
    return losses, gradient


def set_training(model: Any, training: bool) -> None:
    """``model.train(training)``, except that the matrices of bitsandbytes stay in training mode.

    They hold no dropout, but take eval mode as leave to repack (nf4 on a CPU: later steps would lose
    their gradients without an error) or to round activations (int8: slower, and another model).
    """
    model.train(training)
    for module in model.modules():
        if type(module).__module__.startswith("bitsandbytes."):
            module.train()


def example_losses(
    model: Any, examples: Sequence[Example], batch_size: int = 16
) -> list[tuple[float, int]]:
    """(Summed cross-entropy, number) of each example's answer tokens, in the order given.

    Dropout is off meanwhile; the model's mode is as before afterwards.
    """
    return packed_example_losses(model, examples, 1, batch_size)[0]


def packed_example_losses(
    model: Any, examples: Sequence[Example], copies: int, batch_size: int = 16
) -> list[list[tuple[float, int]]]:
    """``example_losses`` for a model that treats ``copies`` equal parts of a batch differently, part by part."""
    device = model.lm_head.weight.device
    result = [[(0.0, 0)] * len(examples) for _ in range(copies)]
    # Sorted by length, so that little is padding.
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].prompt) + len(examples[i].answer))
    with evaluating(model), torch.no_grad():
        for at in range(0, len(order), batch_size):
            indices = order[at : at + batch_size]
            batch = make_batch([examples[i] for i in indices] * copies, device)
            sums = _row_losses(model, batch).view(copies, -1).tolist()
            for copy, values in enumerate(sums):
                for i, value in zip(indices, values, strict=True):
                    result[copy][i] = (value, len(examples[i].answer))
    return result


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Dropout off for this block; the model's mode is as before afterwards."""
    was_training = model.training
    set_training(model, False)
    try:
        yield
    finally:
        set_training(model, was_training)


def _row_losses(model: Any, batch: Batch) -> torch.Tensor:
    """Summed cross-entropy [rows] of each row's answer tokens."""
    losses = torch.cat([
        cross_entropy(logits, batch.target[part], reduction="none") for part, logits in answer_logits(model, batch)
    ])
    return losses.new_zeros(len(batch.ids)).index_add_(0, batch.row, losses)


def answer_logits(model: Any, batch: Batch) -> Iterator[tuple[slice, torch.Tensor]]:
    """fp32 logits [part, vocab] where an answer token is next, a part of the batch's positions at a time."""
    hidden, size = _hidden(model, batch), _chunk(model)
    for start in range(0, len(hidden), size):
        part = slice(start, min(start + size, len(hidden)))
        yield part, head_logits(model, hidden[part])


def mean_loss(losses: Sequence[tuple[float, int]]) -> float:
    """Mean over answer tokens of what ``example_losses`` gives; NaN for no example."""
    count = sum(n for _, n in losses)
    return sum(value for value, _ in losses) / count if count else float("nan")


def evaluate_loss(model: Any, examples: Sequence[Example], batch_size: int = 16) -> float:
    """Mean cross-entropy (nats) of the examples' answer tokens, dropout off."""
    return mean_loss(example_losses(model, examples, batch_size))
