"""How a weight matrix lies in an artifact's file: as it is, narrowed to fp16, or quantized in blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import torch

from autotune.errors import AssemblyError
from autotune.pipeline.contiguous import contiguous
from autotune.pipeline.pieces import in_pieces
from autotune.pipeline.quantize import quantize
from search_spaces.deploy import Algorithm

Array = np.ndarray[Any, Any]

#: Precision of an exported graph's float tensors → its numpy type.
FLOATS: dict[str, Any] = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}


@dataclass(frozen=True)
class Encoding:
    """``float`` keeps the graph's own type; ``fp16`` narrows to it; ``nbits`` is MatMulNBits' block-wise layout.

    The fields after ``kind`` mean something for ``nbits`` alone; see ``quantize``.
    """

    kind: Literal["float", "fp16", "nbits"]
    bits: int = 0
    block: int = 0
    symmetric: bool = True
    algorithm: Algorithm = "default"

    @property
    def has_zero_points(self) -> bool:
        return self.kind == "nbits" and (self.algorithm == "k_quant" or not self.symmetric)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def from_json(raw: Mapping[str, Any]) -> Encoding:
    return Encoding(**raw)


def fits_fp16(matrix: Array) -> bool:
    return max(float(matrix.max()), -float(matrix.min())) <= float(np.finfo(np.float16).max)


def encode(matrix: Array, encoding: Encoding, name: str = "a weight") -> tuple[Array, ...]:
    """The arrays that the file holds for ``matrix`` [out, in], in the graph's float type.

    One array [in, out] for floats; packed [out, blocks, bytes], scales [out, blocks] and, where
    the encoding has them, zero points [out, bytes] for ``nbits``.

    Raises AssemblyError when ``matrix`` does not fit fp16.
    """
    if encoding.kind == "nbits":
        packed, scales, zeros = quantize(
            matrix, encoding.bits, encoding.block, encoding.symmetric, encoding.algorithm
        )
        return (packed, scales) if zeros is None else (packed, scales, zeros)
    if encoding.kind == "fp16":
        if not fits_fp16(matrix):
            raise AssemblyError(f"{name}: the adapter makes weights beyond ±65504, which fp16 cannot hold; a lower "
                                "learning rate or alpha keeps them small")
        return (contiguous(torch.from_numpy(matrix.astype(np.float32, copy=False)).half().numpy().T),)
    return (contiguous(matrix.T),)


def decode(arrays: Sequence[Array], encoding: Encoding, columns: int) -> Array:
    """The fp32 matrix [out, in] that the arrays of ``encode`` stand for; ``columns`` is its width before padding.

    A weight is scale · (level - zero point), as MatMulNBits and GatherBlockQuantized take it.
    """
    if encoding.kind != "nbits":
        return contiguous(arrays[0].T).astype(np.float32)  # a copy, never the file's own mapping
    packed, scales = arrays[0], arrays[1]
    rows, blocks = scales.shape
    matrix = np.empty((rows, columns), np.float32)

    def work(part: slice) -> None:
        count = part.stop - part.start
        levels = _unpack(packed[part].reshape(count, -1), encoding.bits).astype(np.float32)
        whole = levels.reshape(count, blocks, encoding.block)
        whole -= np.float32(2 ** (encoding.bits - 1)) if len(arrays) < 3 else (
            _unpack(arrays[2][part], encoding.bits)[:, :blocks, None].astype(np.float32))
        whole *= scales[part].astype(np.float32)[:, :, None]
        matrix[part] = whole.reshape(count, -1)[:, :columns]

    in_pieces(rows, blocks * encoding.block, work)
    return matrix


def _unpack(packed: Array, bits: int) -> Array:
    """Bytes [rows, n] as levels [rows, n · 8 / bits], the low nibble first."""
    if bits == 8:
        return packed
    return np.stack((packed & 15, packed >> 4), axis=-1).reshape(len(packed), -1)


def shapes(rows: int, columns: int, encoding: Encoding, io: Any) -> tuple[tuple[tuple[int, ...], Any], ...]:
    """(shape, numpy type) of each array that ``encode`` gives for a matrix [rows, columns] of type ``io``."""
    if encoding.kind != "nbits":
        return (((columns, rows), np.float16 if encoding.kind == "fp16" else io),)
    blocks = -(-columns // encoding.block)
    found: list[tuple[tuple[int, ...], Any]] = [
        ((rows, blocks, encoding.block * encoding.bits // 8), np.uint8), ((rows, blocks), io),
    ]
    if encoding.has_zero_points:
        found.append(((rows, -(-blocks * encoding.bits // 8)), np.uint8))
    return tuple(found)
