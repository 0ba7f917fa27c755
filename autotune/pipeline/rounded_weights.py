"""The weights that an adapter's artifact would hold, as fp32 matrices of the PyTorch model.

No artifact is written: what the adapter changes is merged, encoded and decoded by the functions that write and mean an
artifact's bytes, and what it leaves alone is read from the base's own artifact at the deploy point.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autotune.errors import AssemblyError
from autotune.pipeline import graph
from autotune.pipeline.assemble import require_places
from autotune.pipeline.encode import FLOATS, Encoding, decode, encode, fits_fp16, shapes
from autotune.pipeline.layer_weights import LayerWeight, Part
from autotune.pipeline.merge import MergedWeights
from autotune.pipeline.point import ARTIFACT_FOLDER, ChangedWeight, read_layout
from autotune.pipeline.template import matrix
from autotune.pipeline.weight_storage import FP16_FROM_BYTES
from search_spaces.deploy import QUANTIZED, DeployParams

HEAD, EMBEDDING = "lm_head", "model.embed_tokens"

_HEAD_NODE, _EMBEDDING_NODE = "/lm_head/MatMul", "/model/embed_tokens/GatherBlockQuantized"

_QUANTIZED = "MatMulNBits"


def merged_weights(model: Any, base: Path, adapter: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(module, weight [out, in]) of each matrix that the adapter changes, at full precision.

    ``model`` tells shapes alone. Raises AssemblyError when the adapter does not fit the base.
    """
    with MergedWeights(base, adapter) as weights:
        for module in sorted(weights.modules()):
            part = Part(module, 0, len(model.get_submodule(module).weight))
            yield module, weights.matrix(LayerWeight(module, "attention", (part,)))


def rounded_weights(
    model: Any, base: Path, adapter: Path, point: Path, params: DeployParams
) -> Iterator[tuple[str, torch.Tensor]]:
    """(module, weight [out, in]) of each matrix that differs from the base's in the adapter's artifact at ``params``.

    ``point`` is the folder that ``make_point`` wrote for ``base`` there, ``model`` the base in fp32. The head and the
    embedding are among them where the artifact rounds them; where it reads both out of one matrix, they are one tensor.

    Raises AssemblyError when the adapter does not fit the base, or makes weights that the point cannot hold.
    """
    folder, layout = point / ARTIFACT_FOLDER, read_layout(point)
    with MergedWeights(base, adapter) as weights:
        require_places(weights, layout, adapter)
        unfinished: dict[str, tuple[torch.Tensor, int]] = {}
        for changed in layout.weights:
            parts = changed.weight.parts
            columns = model.get_submodule(parts[0].module).weight.shape[1]
            rounded = _layer_matrix(weights, changed, folder, layout.floats, columns)
            if rounded is None:
                continue
            for part, rows in zip(parts, torch.split(rounded, [p.stop - p.start for p in parts]), strict=True):
                height = len(model.get_submodule(part.module).weight)
                whole, left = unfinished.pop(part.module, (torch.empty(height, columns), height))
                whole[part.start : part.stop] = rows
                if left > len(rows):
                    unfinished[part.module] = whole, left - len(rows)
                else:
                    yield part.module, whole
        if unfinished:
            raise AssemblyError(f"{adapter}: {min(unfinished)} is in the artifact in part; accepted are whole matrices")
    yield from _ends(model, folder, layout.floats, params)


def _layer_matrix(
    weights: MergedWeights, changed: ChangedWeight, folder: Path, floats: str, columns: int
) -> torch.Tensor | None:
    """What the artifact computes with, [out, in]; None where that is the base's own matrix."""
    encoding = changed.encoding
    if weights.changes(changed.weight):
        arrays = encode(matrix(weights, changed.weight, floats), encoding, changed.weight.name)
    elif encoding.kind == "float" and floats == "fp32":
        return None
    else:
        rows = sum(part.stop - part.start for part in changed.weight.parts)
        kinds = shapes(rows, columns, encoding, FLOATS[floats])
        arrays = tuple(
            np.memmap(folder / place.file, np.uint8, "r", place.offset, place.length).view(kind).reshape(shape)
            for place, (shape, kind) in zip(changed.places, kinds, strict=True)
        )
    return torch.from_numpy(decode(arrays, encoding, columns))


def _ends(model: Any, folder: Path, floats: str, params: DeployParams) -> Iterator[tuple[str, torch.Tensor]]:
    """The head and the embedding, which no adapter changes, where the artifact rounds them."""
    head, embedding = model.lm_head.weight, model.model.embed_tokens.weight
    if params.precision not in QUANTIZED:
        narrowed = _narrowed(embedding, floats, params)
        own_head = narrowed if head is embedding else _narrowed(head, floats, params)
        found = ((EMBEDDING, narrowed), (HEAD, own_head))
        yield from ((module, weight) for module, weight in found if weight is not None)
        return
    nodes = {node.name: node for node in graph.load(folder).graph}
    at_head = next(node for name, node in nodes.items() if name.startswith(_HEAD_NODE) and node.op_type == _QUANTIZED)
    rounded = _decoded(at_head, [at_head.inputs[1], *at_head.inputs[2:4]], head.shape[1])
    yield HEAD, rounded
    gather = nodes.get(_EMBEDDING_NODE)
    if gather is not None and not gather.inputs[0].is_initializer():
        yield EMBEDDING, rounded
    elif gather is not None:
        yield EMBEDDING, _decoded(gather, [gather.inputs[0], *gather.inputs[2:4]], embedding.shape[1])
    elif (narrowed := _narrowed(embedding, floats, params)) is not None:
        yield EMBEDDING, narrowed


def _decoded(node: Any, inputs: list[Any], columns: int) -> torch.Tensor:
    """The matrix that a node's packed weights, scales and zero points stand for."""
    encoding = Encoding("nbits", node.attributes["bits"].as_int(), node.attributes["block_size"].as_int())
    arrays = [value.const_value.numpy() for value in inputs if value is not None]
    return torch.from_numpy(decode(arrays, encoding, columns))


def _narrowed(weight: torch.Tensor, floats: str, params: DeployParams) -> torch.Tensor | None:
    """A float matrix as the artifact holds it; None where that is as it is."""
    if floats != "fp32":
        return weight.to(torch.float16 if floats == "fp16" else torch.bfloat16).float()
    small = 4 * weight.numel() < FP16_FROM_BYTES
    if params.precision != "fp16" or small or not fits_fp16(weight.detach().cpu().numpy()):
        return None
    return weight.half().float()
