"""Edits of an exported float graph that change how its weights are stored, and remember how, for each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from autotune.pipeline import graph
from autotune.pipeline.encode import Encoding, encode, fits_fp16, shapes

DOMAIN = "com.microsoft"

#: Float weight's name → how it is stored now, and the names of the initializers that hold it.
Stored = dict[str, tuple[Encoding, tuple[str, ...]]]

#: Weights smaller than this stay fp32: norms and biases cost nothing and are the most sensitive.
FP16_FROM_BYTES = 64 * 1024


def quantize_matmuls(
    model: Any, encoding: Encoding, accuracy_level: int, bits_of: Mapping[str, int]
) -> Stored:
    """Replace each MatMul by a constant matrix with MatMulNBits, quantized when it is written.

    ``bits_of`` names the nodes that have other bits than ``encoding``. ``accuracy_level`` 0 is left unset.
    """
    stored: Stored = {}
    latest = _Latest()
    for node in list(model.graph):
        if node.op_type != "MatMul" or node.inputs[1].const_value is None:
            continue
        weight = node.inputs[1]
        width = bits_of.get(node.name, encoding.bits)
        own = Encoding("nbits", width, encoding.block, encoding.symmetric, encoding.algorithm)
        suffixes = (f"Q{width}", "scales", "zero_points")[: 3 if own.has_zero_points else 2]
        names = tuple(f"{weight.name}_{suffix}" for suffix in suffixes)
        values = latest.values(model, names, weight.const_value, own)
        columns, rows = (int(size) for size in weight.const_value.shape)
        attributes = {"K": columns, "N": rows, "bits": width, "block_size": encoding.block}
        if accuracy_level:
            attributes["accuracy_level"] = accuracy_level
        new = ir.node("MatMulNBits", [node.inputs[0], *values], attributes=attributes, domain=DOMAIN,
                      name=f"{node.name}_Q{width}")
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [new], node.outputs, new.outputs)
        graph.remove_unused(model, weight)
        stored[weight.name] = (own, names)
    model.opset_imports.setdefault(DOMAIN, 1)
    return stored


def store_as_fp16(model: Any) -> Stored:
    """Hold the large fp32 weights as fp16, each widened to fp32 by a Cast that ORT folds at load.

    RoPE caches stay fp32: they are not weights, they are small once trimmed, and rounding them moves
    every position. So does a weight that fp16 cannot hold, beyond ±65504.
    """
    stored: Stored = {}
    caches = {id(value) for value in graph.rope_caches(model)}
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor.dtype != ir.DataType.FLOAT or tensor.nbytes < FP16_FROM_BYTES or id(value) in caches:
            continue
        if not fits_fp16(tensor.numpy()):
            continue
        small = graph.add_lazy_initializer(
            model, f"{value.name}_fp16", tuple(tensor.shape), np.float16,
            partial(_narrow, tensor),
        )
        cast = ir.node("Cast", [small], attributes={"to": int(ir.DataType.FLOAT)}, name=f"{value.name}/Cast")
        wide = cast.outputs[0]
        wide.name, wide.type, wide.shape = f"{value.name}_fp32", value.type, value.shape
        model.graph.append(cast)
        graph.replace_uses(value, wide)
        graph.remove_unused(model, value)
        stored[value.name] = (Encoding("fp16"), (small.name,))
    return stored


def _narrow(tensor: Any) -> np.ndarray[Any, Any]:
    narrowed: np.ndarray[Any, Any] = tensor.numpy().astype(np.float16)
    return narrowed


class _Latest:
    """Initializers whose arrays come out of one encoding of a weight, made when the first is asked for.

    Only the latest weight's arrays are held, so writing them in order encodes each weight once.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._arrays: tuple[np.ndarray[Any, Any], ...] = ()

    def values(self, model: Any, names: tuple[str, ...], tensor: Any, encoding: Encoding) -> list[Any]:
        """``tensor`` is the float weight [in, out]."""
        columns, rows = (int(size) for size in tensor.shape)
        kinds = shapes(rows, columns, encoding, tensor.dtype.numpy())
        return [
            graph.add_lazy_initializer(
                model, name, shape, dtype, partial(self._array, names, tensor, encoding, i)
            )
            for i, (name, (shape, dtype)) in enumerate(zip(names, kinds, strict=True))
        ]

    def _array(self, names: tuple[str, ...], tensor: Any, encoding: Encoding, i: int) -> np.ndarray[Any, Any]:
        if self._names != names:
            self._arrays = ()  # before the next are made
            self._arrays = encode(tensor.numpy().T, encoding, names[0])
            self._names = names
        return self._arrays[i]
