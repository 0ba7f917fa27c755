"""Which weights of an exported graph an adapter can change, and where the base model keeps them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Group = Literal["attention", "mlp"]
Shape = tuple[int, ...]

#: What ModelBuilder calls a decoder layer's matrices, stored as [in, out].
_NAME = re.compile(r"model\.layers\.(\d+)\.(attn|mlp)\.(\w+)\.MatMul\.weight")
_GROUPS: dict[str, tuple[Group, str]] = {"attn": ("attention", "self_attn"), "mlp": ("mlp", "mlp")}

#: One matrix of the graph ↔ several of the checkpoint, one after the other on the output axis, or the other way.
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


@dataclass(frozen=True)
class Part:
    """Rows ``start`` to ``stop`` of a checkpoint's matrix [out, in]; ``module`` is its name without ``.weight``."""

    module: str
    start: int
    stop: int


@dataclass(frozen=True)
class LayerWeight:
    """A graph's initializer ``name``, [in, out]: the transpose of its ``parts``, one below the other."""

    name: str
    group: Group
    parts: tuple[Part, ...]

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "group": self.group, "parts": [[p.module, p.start, p.stop] for p in self.parts]}


def from_json(raw: Mapping[str, Any]) -> LayerWeight:
    return LayerWeight(raw["name"], raw["group"], tuple(Part(*part) for part in raw["parts"]))


def find(initializers: Mapping[str, Shape], checkpoint: Mapping[str, Shape]) -> list[LayerWeight]:
    """The layer matrices among a graph's initializers, by the names that both sides use.

    Arguments are shapes by tensor name. A name that fits nothing of the checkpoint is left out, and so is
    one whose shapes do not fit; whether the values do is for the caller to compare.
    """
    found = []
    for name, shape in initializers.items():
        match = _NAME.fullmatch(name)
        if match is None or len(shape) != 2:
            continue
        group, place = _GROUPS[match[2]]
        prefix = f"model.layers.{match[1]}.{place}."
        beside = name.removesuffix(f"{match[3]}.MatMul.weight")
        siblings = {other: s for other, s in initializers.items() if other.startswith(beside)}
        parts = _parts(prefix, match[3], shape, siblings, checkpoint)
        if parts:
            found.append(LayerWeight(name, group, parts))
    return found


def _parts(
    prefix: str, proj: str, shape: Shape, siblings: Mapping[str, Shape], checkpoint: Mapping[str, Shape]
) -> tuple[Part, ...]:
    columns, rows = shape
    whole = prefix + proj
    if checkpoint.get(f"{whole}.weight") == (rows, columns):
        return (Part(whole, 0, rows),)
    pieces = [prefix + piece for piece in _FUSED.get(proj, ())]
    shapes = [checkpoint.get(f"{piece}.weight") for piece in pieces]
    if pieces and all(s is not None and s[1] == columns for s in shapes):
        heights = [s[0] for s in shapes if s]
        return tuple(Part(piece, 0, height) for piece, height in zip(pieces, heights, strict=True)) \
            if sum(heights) == rows else ()
    return _slice(prefix, proj, columns, siblings, checkpoint)


def _slice(
    prefix: str, proj: str, columns: int, siblings: Mapping[str, Shape], checkpoint: Mapping[str, Shape]
) -> tuple[Part, ...]:
    """A matrix that the checkpoint holds as a part of a fused one."""
    for fused, pieces in _FUSED.items():
        whole = checkpoint.get(f"{prefix}{fused}.weight")
        if proj not in pieces or whole is None or whole[1] != columns:
            continue
        heights = _heights(pieces, siblings)
        if heights and sum(heights) == whole[0]:
            start = sum(heights[: pieces.index(proj)])
            return (Part(prefix + fused, start, start + heights[pieces.index(proj)]),)
    return ()


def _heights(pieces: Sequence[str], siblings: Mapping[str, Shape]) -> list[int]:
    shapes = [next((s for n, s in siblings.items() if n.endswith(f".{piece}.MatMul.weight")), None) for piece in pieces]
    return [s[1] for s in shapes if s] if all(shapes) else []
