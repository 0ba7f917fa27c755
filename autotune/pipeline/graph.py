"""Edits on an exported ONNX graph that change how weights are stored, not what is computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from autotune.errors import AssemblyError

MODEL_FILE = "model.onnx"

#: operator → the positions of its cos and sin caches.
_ROPE_INPUTS = {"GroupQueryAttention": (7, 8), "RotaryEmbedding": (2, 3)}


def load(folder: Path) -> Any:
    """The exported graph; its weights stay in the file until they are asked for.

    For files of our own making: a data file may be a hard link, which onnx_ir would refuse.
    """
    model = ir.load(folder / MODEL_FILE)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            # Only of a path that is whole does onnx_ir take our word.
            value.const_value = ir.ExternalTensor(
                str(folder / tensor.location), tensor.offset, tensor.length, tensor.dtype,
                shape=ir.Shape(tensor.shape), name=value.name,
            )
    return model


def add_initializer(model: Any, name: str, data: np.ndarray[Any, Any]) -> Any:
    """A new weight in the graph; returns its value."""
    tensor = ir.Tensor(np.ascontiguousarray(data), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
    model.graph.register_initializer(value)
    return value


def add_lazy_initializer(
    model: Any, name: str, shape: tuple[int, ...], dtype: Any, make: Callable[[], np.ndarray[Any, Any]]
) -> Any:
    """A new weight in the graph that is made when it is written; returns its value."""
    kind = ir.DataType.from_numpy(np.dtype(dtype))
    tensor = ir.LazyTensor(lambda: ir.Tensor(make(), name=name), dtype=kind, shape=ir.Shape(shape), name=name)
    value = ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def replace_uses(old: Any, new: Any, keep: Any = None) -> None:
    """Let every reader of ``old`` read ``new``, except the node ``keep``."""
    for use in list(old.uses()):
        if use.node is not keep:
            use.node.replace_input_with(use.idx, new)


def remove_unused(model: Any, *values: Any) -> None:
    """Forget initializers that nothing reads any more."""
    for value in values:
        if not value.uses() and value.name in model.graph.initializers:
            del model.graph.initializers[value.name]


def trim_rope_caches(model: Any, context_length: int, short_rows: int | None = None) -> None:
    """Cut the cos and sin caches to the positions that a context of this length can reach.

    Where a model keeps a short and a long cache (LongRoPE, arXiv 2402.13753) both are cut: which one
    is read depends on the sequence's length against the original context, a constant of the graph that
    is left alone, so a context below it reads the short cache as before. ``short_rows`` is given when
    the two lie one after the other in one tensor: then the long part begins at that row and is cut.
    """
    if context_length < 1:
        raise AssemblyError(f"context_length: {context_length} found; accepted is 1 or more tokens")
    for value in rope_caches(model):
        if value.const_value is not None and value.is_initializer():
            _cut(value, context_length + (short_rows or 0))
        elif value.producer() is not None and value.producer().op_type == "If":
            for branch in ("then_branch", "else_branch"):
                inner = value.producer().attributes[branch].as_graph().outputs[value.index()]
                _cut_constant(inner, context_length)


def rope_caches(model: Any) -> Iterator[Any]:
    """The values that attention reads its RoPE caches from, each once."""
    seen: set[int] = set()
    for node in model.graph:
        for position in _ROPE_INPUTS.get(node.op_type, ()):
            value = node.inputs[position] if position < len(node.inputs) else None
            if value is not None and id(value) not in seen:
                seen.add(id(value))
                yield value


def _cut(value: Any, rows: int) -> None:
    tensor = value.const_value
    if tensor.shape[0] > rows:
        value.const_value = ir.Tensor(np.ascontiguousarray(tensor.numpy()[:rows]), name=value.name)
        value.shape = value.const_value.shape


def _cut_constant(value: Any, rows: int) -> None:
    node = value.producer()
    if node is None or node.op_type != "Constant":
        return
    tensor = node.attributes["value"].as_tensor()
    if tensor.shape[0] > rows:
        cut = ir.Tensor(np.ascontiguousarray(tensor.numpy()[:rows]), name=tensor.name)
        node.attributes["value"] = ir.AttrTensor("value", cut)
        value.shape = cut.shape


def set_context_length(folder: Path, context_length: int) -> None:
    """Write a shorter context into genai_config.json and the tokenizer's configuration."""
    path = folder / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model"]["context_length"] = context_length
    config["search"]["max_length"] = context_length
    _rewrite(path, json.dumps(config, indent=4))
    path = folder / "tokenizer_config.json"
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        config["model_max_length"] = context_length
        _rewrite(path, json.dumps(config, indent=2, ensure_ascii=False))


def stop_at(folder: Path, eos_id: int) -> None:
    """Make generation end at the id that training put behind every answer.

    A chat template's end of turn is often missing from the model's own list of end tokens.
    """
    path = folder / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    known = config["model"].get("eos_token_id")
    ids = known if isinstance(known, list) else [] if known is None else [known]
    if eos_id not in ids:
        config["model"]["eos_token_id"] = [*ids, eos_id]
        _rewrite(path, json.dumps(config, indent=4))


def _rewrite(path: Path, text: str) -> None:
    """As another file of the same name: ``path`` may be one of several hard links."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
