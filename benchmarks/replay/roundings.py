"""Right and wrong of an adapter at every deploy point's rounding, without an artifact: for recording many of them.

The weights of the base with the adapter merged into them are rounded by the very functions that write artifacts,
and widened again where the model runs. What it leaves out is that an artifact may round activations, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autotune.pipeline.batching import head_logits, make_batch
from autotune.pipeline.encode import Encoding, encode
from autotune.pipeline.layer_weights import LayerWeight
from autotune.pipeline.merge import MergedWeights
from autotune.pipeline.point import Layout
from autotune.pipeline.tokens import Example, TokenizedData
from objectives.accuracy import Node, build_trie
from search_spaces.deploy import QUANTIZED, DeployParams

Arrays = tuple[torch.Tensor, ...]

#: The label of no rounding at all.
PLAIN = "fp32"
_ROWS = 64


@dataclass(frozen=True)
class Answers:
    """``right`` has a flag for every row, ``losses`` the summed cross-entropy (nats) of its answer's tokens."""

    right: tuple[bool, ...]
    losses: tuple[float, ...]


def head_encoding(point: DeployParams) -> Encoding:
    """How an artifact holds a tied model's embedding and head."""
    if point.precision not in QUANTIZED:
        return Encoding("fp16" if point.precision == "fp16" else "float")
    eight = point.precision == "int8" or point.int8_where == "head"
    return Encoding("nbits", 8 if eight else 4, point.block_size, point.symmetric, point.algorithm)


def widen(arrays: Arrays, encoding: Encoding, columns: int) -> torch.Tensor:
    """The fp32 matrix [rows, columns] that ``encode``'s arrays stand for."""
    if encoding.kind != "nbits":
        return arrays[0].T.float()
    levels = _unpacked(arrays[0].flatten(1), encoding.bits).view(*arrays[1].shape, encoding.block)
    middle = 2 ** (encoding.bits - 1)
    zeros = _unpacked(arrays[2], encoding.bits)[:, : arrays[1].shape[1]].unsqueeze(2) if len(arrays) > 2 else middle
    return ((levels - zeros) * arrays[1].unsqueeze(2)).flatten(1)[:, :columns]


def _unpacked(packed: torch.Tensor, bits: int) -> torch.Tensor:
    if bits == 8:
        return packed.float()
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(1).float()


class Roundings:
    """Judges adapters on ``model``, a tied base in fp32 that is the caller's alone, whose weights it overwrites.

    ``layouts`` say how each point's artifacts hold the layer matrices, ``heads`` hold the arrays of each encoding of
    the head, which no adapter changes.
    """

    def __init__(
        self, model: Any, base: Path, points: Mapping[DeployParams, Layout], heads: Mapping[Encoding, Arrays]
    ) -> None:
        self._model, self._base, self._points = model, base, points
        self._device = model.device
        self._embedding = model.get_input_embeddings().weight
        if model.lm_head.weight is not self._embedding:
            raise ValueError(f"{base}: the head is not the embedding; accepted are tied models")
        self._plain_head = self._embedding.data
        self._heads = {encoding: tuple(a.to(self._device) for a in arrays) for encoding, arrays in heads.items()}
        self._kept: dict[tuple[str, Encoding], Arrays] = {}

    def judge(
        self, adapter: Path, data: TokenizedData, rows: Sequence[Example], rounded: bool
    ) -> dict[str, Answers]:
        """The answers at full precision and, where ``rounded``, by the points' labels."""
        trie = build_trie(data.label_ids, data.eos_id)
        with MergedWeights(self._base, adapter) as weights:
            names = [changed.weight for changed in next(iter(self._points.values())).weights]
            merged = {weight.name: weights.matrix(weight) for weight in names}
            changed = {weight.name for weight in names if weights.changes(weight)}
        found = {PLAIN: self._answers(self._placed(merged, names), self._plain_head, rows, trie)}
        memory: dict[tuple[str, Encoding], Arrays] = {}
        for point, layout in self._points.items() if rounded else ():
            placed = self._rounded(layout, merged, changed, memory)
            found[point.label] = self._answers(placed, self._head(head_encoding(point)), rows, trie)
        self._embedding.data = self._plain_head
        return found

    def _head(self, encoding: Encoding) -> torch.Tensor:
        if encoding.kind == "float":
            return self._plain_head
        if encoding.kind == "fp16":
            return self._plain_head.half().float()
        return widen(self._heads[encoding], encoding, self._plain_head.shape[1])

    def _placed(
        self, merged: Mapping[str, torch.Tensor], names: Sequence[LayerWeight]
    ) -> Iterator[tuple[LayerWeight, torch.Tensor]]:
        return ((weight, merged[weight.name].to(self._device)) for weight in names)

    def _rounded(
        self, layout: Layout, merged: Mapping[str, torch.Tensor], changed: set[str],
        rounded: dict[tuple[str, Encoding], Arrays],
    ) -> Iterator[tuple[LayerWeight, torch.Tensor]]:
        """Each layer matrix after rounding; what other points of this adapter have rounded so is taken from there."""
        for held in layout.weights:
            key = (held.weight.name, held.encoding)
            memory = rounded if held.weight.name in changed else self._kept
            matrix = merged[held.weight.name]
            if key not in memory:
                arrays = encode(matrix.numpy(), held.encoding, held.weight.name)
                memory[key] = tuple(torch.from_numpy(np.ascontiguousarray(a)).to(self._device) for a in arrays)
            yield held.weight, widen(memory[key], held.encoding, matrix.shape[1])

    def _answers(
        self, weights: Iterator[tuple[LayerWeight, torch.Tensor]], head: torch.Tensor, rows: Sequence[Example],
        trie: Node,
    ) -> Answers:
        with torch.no_grad():
            for weight, matrix in weights:
                at = 0
                for part in weight.parts:
                    size = part.stop - part.start
                    own = self._model.get_submodule(part.module).weight
                    own[part.start : part.stop].copy_(matrix[at : at + size])
                    at += size
            self._embedding.data = head
            return answers(self._model, rows, trie)


def answers(model: Any, rows: Sequence[Example], trie: Node) -> Answers:
    """Which rows greedy decoding along the trie answers right, from one pass over prompts and right answers.

    It does exactly where at each node on the right answer's way its token leads.
    """
    right, losses = [True] * len(rows), [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt) + len(rows[i].answer))
    with torch.no_grad():
        for start in range(0, len(order), _ROWS):
            some = order[start : start + _ROWS]
            batch = make_batch([rows[i] for i in some], model.device)
            hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
            logits = head_logits(model, hidden[batch.row, batch.column])
            each = torch.nn.functional.cross_entropy(logits, batch.target, reduction="none").tolist()
            at = 0
            for i in some:
                answer = rows[i].answer
                losses[i] = sum(each[at : at + len(answer)])
                right[i] = _leads(logits[at : at + len(answer)], answer, trie)
                at += len(answer)
    return Answers(tuple(right), tuple(losses))


def _leads(logits: torch.Tensor, answer: Sequence[int], trie: Node) -> bool:
    node = trie
    for place, token in enumerate(answer):
        if node.label is not None:
            return True
        allowed = list(node.children)
        if allowed[int(logits[place, allowed].argmax())] != token:
            return False
        node = node.children[token]
    return True
