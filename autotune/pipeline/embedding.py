"""The embedding of a quantized artifact, at the bits of its head instead of in float.

For a small model with a large vocabulary the embedding is most of the file: 671 MB of the 1,040 MB
that ModelBuilder writes for a 270M model at int8. A tied model's embedding *is* the head's matrix, so
it is read out of that; an untied one's is quantized beside it, in the same layout by the same rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from autotune.errors import AssemblyError
from autotune.pipeline import graph
from autotune.pipeline.contiguous import contiguous
from autotune.pipeline.quantize import quantize
from autotune.pipeline.weight_storage import DOMAIN

_EMBEDDING = "model.embed_tokens.weight"
_GATHER = "/model/embed_tokens/Gather"
_HEAD = "/lm_head/MatMul"


def quantize_embedding(model: Any, is_tied: bool) -> bool:
    """Replace the float Gather of the embedding by GatherBlockQuantized; False if it already is one.

    Raises AssemblyError when the graph has no quantized head to take bits and block size from.
    """
    gather = _float_gather(model)
    if gather is None:
        return False
    head = next(
        (n for n in model.graph if n.op_type == "MatMulNBits" and (n.name or "").startswith(_HEAD)), None
    )
    if head is None:
        raise AssemblyError("share_embedding: the graph has no quantized head at /lm_head/MatMul to share")
    bits, block = head.attributes["bits"].as_int(), head.attributes["block_size"].as_int()
    source, rows = _float_rows(gather)
    vocab, hidden = (int(size) for size in rows.shape)
    if is_tied:
        weights = _head_as_rows(model, gather, head, vocab)
    else:
        symmetric = len(head.inputs) < 4 or head.inputs[3] is None
        weights = _quantized_rows(model, rows.numpy(), bits, block, symmetric)
    _gather_quantized(model, gather, weights, bits, block, hidden)
    _forget(model, source)
    return True


def float_embedding_apart(model: Any) -> None:
    """Give the embedding a float matrix of its own where it reads the head's, which is about to be quantized."""
    gather = _float_gather(model)
    if gather is None or gather.inputs[0].is_initializer():
        return
    source, rows = _float_rows(gather)
    own = graph.add_lazy_initializer(model, _EMBEDDING, tuple(rows.shape), rows.dtype.numpy(),
                                     lambda: contiguous(rows.numpy()))
    gather.replace_input_with(0, own)
    _forget(model, source)


def _float_gather(model: Any) -> Any | None:
    return next((n for n in model.graph if n.op_type == "Gather" and n.name == _GATHER), None)


def _float_rows(gather: Any) -> tuple[Any, Any]:
    """What the Gather reads, and that as a tensor [vocab, hidden]: a matrix, or the head's turned round."""
    source = gather.inputs[0]
    if source.is_initializer():
        return source, source.const_value
    head = source.producer().inputs[0].const_value
    turned = ir.LazyTensor(lambda: ir.Tensor(head.numpy().T), dtype=head.dtype, shape=ir.Shape(tuple(head.shape)[::-1]))
    return source, turned


def _forget(model: Any, source: Any) -> None:
    """Drop what the Gather read, if nothing else reads it."""
    turn = source.producer()
    if turn is None:
        graph.remove_unused(model, source)
    elif not source.uses():
        head = turn.inputs[0]
        model.graph.remove(turn, safe=True)
        graph.remove_unused(model, head)


def _head_as_rows(model: Any, gather: Any, head: Any, vocab: int) -> list[Any]:
    """Packed weights as [vocab, packed hidden], scales [vocab, blocks], zero points if there are any.

    MatMulNBits holds its packed weights as [vocab, blocks, bytes of a block], which has the very bytes
    that GatherBlockQuantized wants in two dimensions. A missing zero point means the middle of the
    range to both operators (8 at 4 bits, 128 at 8), and both multiply by the scale as it is, negative
    ones included, so symmetric weights carry over too.
    """
    shape = graph.add_initializer(model, "/model/embed_tokens/shape", np.array([vocab, -1], np.int64))
    reshape = ir.node("Reshape", [head.inputs[1], shape], name="/model/embed_tokens/Reshape")
    rows = reshape.outputs[0]
    rows.name, rows.type = "/model/embed_tokens/Reshape/output_0", ir.TensorType(ir.DataType.UINT8)
    model.graph.insert_before(gather, reshape)
    return [rows, *head.inputs[2:4]]


def _quantized_rows(
    model: Any, embedding: np.ndarray[Any, Any], bits: int, block: int, symmetric: bool
) -> list[Any]:
    """An untied embedding, rounded as the matrices are by default."""
    packed, scales, zeros = quantize(embedding, bits, block, symmetric, "default")
    parts = [
        graph.add_initializer(model, f"{_EMBEDDING}_Q{bits}", packed.reshape(len(packed), -1)),
        graph.add_initializer(model, f"{_EMBEDDING}_scales", scales),
    ]
    if zeros is not None:
        parts.append(graph.add_initializer(model, f"{_EMBEDDING}_zero_points", zeros))
    return parts


def _gather_quantized(
    model: Any, gather: Any, weights: list[Any], bits: int, block: int, hidden: int
) -> None:
    """Put GatherBlockQuantized in the place of ``gather``; cut the padding of the last block off."""
    attributes = {"bits": bits, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
    node = ir.node(
        "GatherBlockQuantized", [weights[0], gather.inputs[1], *weights[1:]], attributes=attributes,
        domain=DOMAIN, name="/model/embed_tokens/GatherBlockQuantized",
    )
    new = [node]
    out = node.outputs[0]
    out.name = "/model/embed_tokens/GatherBlockQuantized/output_0"
    if hidden % block:
        ends = [
            graph.add_initializer(model, f"/model/embed_tokens/slice_{name}", np.array([number], np.int64))
            for name, number in (("start", 0), ("end", hidden), ("axis", -1))
        ]
        cut = ir.node("Slice", [out, *ends], name="/model/embed_tokens/Slice")
        out = cut.outputs[0]
        out.name = "/model/embed_tokens/Slice/output_0"
        new.append(cut)
    old = gather.outputs[0]
    out.type, out.shape = old.type, old.shape
    model.graph.insert_before(gather, new)
    graph.replace_uses(old, out)
    model.graph.remove(gather, safe=True)  # safe: it no longer counts as a reader of the float embedding
    model.opset_imports.setdefault(DOMAIN, 1)
