"""How an adapter answers, in PyTorch and without an artifact: the cheap judgement at a rung of its training.

One teacher-forced pass tells what greedy decoding along the trie of labels would answer: that goes along a row's own
answer as long as, at each of its tokens, no other one that the trie allows there has a larger logit. So a row is right
if and only if that holds at all of them; where it first fails, decoding has left for another label.

At a deploy point the weights are those that the artifact would hold. What the runtime rounds besides, such as
activations to int8 at accuracy level 4, is left out: this ranks adapters, artifacts are measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from autotune.pipeline.batching import answer_logits, evaluating, make_batch, mean_loss
from autotune.pipeline.rounded_weights import merged_weights, rounded_weights
from autotune.pipeline.roundings import FULL, roundings
from autotune.pipeline.tokens import Example
from objectives.accuracy import Node
from search_spaces.deploy import DeployParams

_ROWS = 16


@dataclass(frozen=True)
class Judged:
    """By row, in the order given: (summed cross-entropy in nats, number) of its answer tokens, and whether greedy
    decoding along the trie gives its answer. ``right`` is empty where there is no trie."""

    losses: tuple[tuple[float, int], ...]
    right: tuple[bool, ...]

    @property
    def loss(self) -> float:
        """Mean over all answer tokens."""
        return mean_loss(self.losses)


def judge(
    model: Any, base: Path, adapter: Path, rows: Sequence[Example], trie: Node | None,
    points: Mapping[DeployParams, Path] | None = None, full: bool = True,
) -> dict[DeployParams, Judged]:
    """How ``adapter`` answers ``rows``, by ``rounding``: as each of ``points`` rounds, and where ``full`` is asked for
    at full precision (``FULL``).

    ``model`` is the frozen base in fp32 from the folder ``base``, on any device; its weights give way to others
    meanwhile and are the same tensors again afterwards. ``points`` gives the folder that ``make_point`` wrote for each
    point; those that round alike are judged once. ``trie`` is None for a task without labels: losses alone.

    Needs memory for one more copy of the matrices that change: at full precision the adapter's own, at a rounding
    all layer matrices, and the head's and embedding's where those are rounded.

    Raises AssemblyError when the adapter does not fit the base, or a point cannot hold what it makes.
    """
    points = points or {}
    found: dict[DeployParams, Judged] = {}
    if full:
        with _weights_instead(model, merged_weights(model, base, adapter)):
            found[FULL] = _answers(model, rows, trie)
    for shared, params in roundings(points).items():
        with _weights_instead(model, rounded_weights(model, base, adapter, points[params], params)):
            found[shared] = _answers(model, rows, trie)
    return found


@contextmanager
def _weights_instead(model: Any, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[None]:
    """Other weights in these modules for this block, then the very parameters that were there: none is copied back."""
    held = []
    before: torch.Tensor | None = None
    try:
        for name, tensor in weights:
            module = model.get_submodule(name)
            held.append((module, module.weight))
            if tensor is not before:  # a tied head and embedding come one after the other
                before, parameter = tensor, torch.nn.Parameter(tensor.to(module.weight), requires_grad=False)
            module.weight = parameter
        yield
    finally:
        for module, weight in reversed(held):
            module.weight = weight


def _answers(model: Any, rows: Sequence[Example], trie: Node | None) -> Judged:
    """Rows of like length together, so that little is padding."""
    losses, right = [(0.0, 0)] * len(rows), [False] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt) + len(rows[i].answer))
    with evaluating(model), torch.no_grad():
        for start in range(0, len(order), _ROWS):
            indices = order[start : start + _ROWS]
            sums, chosen = _batch([rows[i] for i in indices], model, trie)
            for i, total, gold in zip(indices, sums, chosen, strict=True):
                losses[i], right[i] = (total, len(rows[i].answer)), gold
    return Judged(tuple(losses), tuple(right) if trie is not None else ())


def _batch(rows: Sequence[Example], model: Any, trie: Node | None) -> tuple[list[float], list[bool]]:
    """Each row's summed loss, and whether its answer is what decoding along the trie gives."""
    batch = make_batch(rows, model.lm_head.weight.device)
    allowed, gold, count = _choices(rows, trie, batch.target.device)
    sums = torch.zeros(len(rows), device=batch.ids.device)
    missed = torch.zeros(len(rows), device=batch.ids.device)
    for part, logits in answer_logits(model, batch):
        sums.index_add_(0, batch.row[part], cross_entropy(logits, batch.target[part], reduction="none"))
        if allowed.shape[1]:
            values = logits.gather(1, allowed[part])
            values = values.masked_fill(torch.arange(allowed.shape[1], device=values.device) >= count[part, None],
                                        float("-inf"))
            # The first of equals, as the probe takes it; a NaN is the largest here, and no answer.
            best = values.argmax(1)
            wrong = (best != gold[part]) | values.isnan().any(1)
            missed.index_add_(0, batch.row[part], (wrong & (count[part] > 0)).float())
    return sums.tolist(), (missed == 0).tolist()


def _choices(
    rows: Sequence[Example], trie: Node | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each answer position of the rows, in their order: the tokens allowed there [n, most] (the first ``count`` [n]
    of them, ascending; none where the label is settled) and the place [n] of the row's own token among them."""
    choices: list[tuple[list[int], int]] = []
    for row in rows:
        node = trie
        for token in row.answer:
            allowed = list(node.children) if node is not None and node.label is None else []
            choices.append((allowed, allowed.index(token) if allowed else 0))
            node = node.children[token] if allowed and node is not None else None
    most = max(len(allowed) for allowed, _ in choices)
    padded = [allowed + [0] * (most - len(allowed)) for allowed, _ in choices]
    return (torch.tensor(padded, dtype=torch.long, device=device).view(len(choices), most),
            torch.tensor([place for _, place in choices], device=device),
            torch.tensor([len(allowed) for allowed, _ in choices], device=device))
