"""Block-wise weight quantization, as MatMulNBits holds it.

ModelBuilder can quantize too, but by copying the whole model through protobuf messages, with kernels
that want the matrix transposed and, for k_quant, in numpy a matrix at a time. For the algorithms
``default`` and ``rtn`` the bytes are the builder's own; a test compares them.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from autotune.pipeline.contiguous import contiguous
from autotune.pipeline.k_quant import k_quant
from autotune.pipeline.pieces import in_pieces
from search_spaces.deploy import Algorithm

Array = np.ndarray[Any, Any]

#: Levels [n, block] (uint8), scales [n, 1] (floats) and zero points [n, 1] (uint8) of blocks [n, block].
Rounded = tuple[Array, Array, Array]


class Rounding(Protocol):
    def __call__(self, x: Array, bits: int, symmetric: bool, scale_type: Any) -> Rounded:
        """Round blocks ``x`` [n, block], fp32, whose scales will be kept in the numpy type ``scale_type``."""


#: Matrix rows at a time: the working copies of a 262,144-row head would otherwise take gigabytes.
_CHUNK = 8192

#: Added to a number before its fraction is cut off, it rounds halves up; with 0.5 itself, what is just below
#: a half would go up too.
_HALF = np.nextafter(np.float32(0.5), np.float32(0))


def quantize(
    matrix: Array, bits: int, block: int, symmetric: bool, algorithm: Algorithm
) -> tuple[Array, Array, Array | None]:
    """Quantize each row of ``matrix`` [rows, columns] (fp32 or fp16) in blocks of ``block`` columns.

    Returns packed bytes [rows, blocks, block · bits / 8], scales [rows, blocks] in the matrix's dtype
    and zero points [rows, ⌈blocks · bits / 8⌉], or None for the middle of the range (8 at 4 bits, 128 at
    8). The last block is padded with zeros. At 4 bits the first of two numbers is in the low nibble.
    """
    rows, columns = matrix.shape
    blocks = -(-columns // block)
    packed = np.empty((rows, blocks, block * bits // 8), np.uint8)
    scales = np.empty((rows, blocks), matrix.dtype)
    zeros = np.empty((rows, -(-blocks * bits // 8)), np.uint8)
    for start in range(0, rows, _CHUNK):
        part = slice(start, min(start + _CHUNK, rows))
        flat = _blocks(matrix[part], block)
        if algorithm == "k_quant":
            levels, scale, zero = k_quant(flat, bits)
        else:
            levels, scale, zero = _rounded(flat, _default if algorithm == "default" else _rtn, bits, symmetric,
                                           matrix.dtype)
        if algorithm == "default":
            levels.reshape(-1, blocks * block)[:, columns:] = 0  # as ORT's kernels leave what is no weight
        packed[part] = _pack(levels.reshape(-1, blocks * block), bits).reshape(packed[part].shape)
        scales[part] = scale.reshape(-1, blocks)
        zeros[part] = _pack(zero.reshape(-1, blocks), bits)
    has_zeros = algorithm == "k_quant" or not symmetric
    return packed, scales, zeros if has_zeros else None


def _blocks(rows: Array, block: int) -> Array:
    """Rows [n, columns] as fp32 blocks [n · blocks, block], the last of each row padded with zeros."""
    missing = -rows.shape[1] % block
    whole = np.pad(rows, ((0, 0), (0, missing))) if missing else rows
    return contiguous(whole).astype(np.float32, copy=False).reshape(-1, block)


def _rounded(flat: Array, round_blocks: Rounding, bits: int, symmetric: bool, scale_type: Any) -> Rounded:
    levels = np.empty(flat.shape, np.uint8)
    scale, zero = np.empty((len(flat), 1), scale_type), np.empty((len(flat), 1), np.uint8)

    def work(part: slice) -> None:
        levels[part], scale[part], zero[part] = round_blocks(flat[part], bits, symmetric, scale_type)

    in_pieces(flat.shape[0], flat.shape[1], work)
    return levels, scale, zero


def _pack(levels: Array, bits: int) -> Array:
    """Levels [rows, n] as bytes [rows, ⌈n · bits / 8⌉]; an odd last nibble gets the middle of the range."""
    if bits == 8:
        return levels
    if levels.shape[1] % 2:
        levels = np.pad(levels, ((0, 0), (0, 1)), constant_values=8)
    pairs = np.ascontiguousarray(levels).view("<u2")  # the first level in the low byte
    packed: Array = (pairs | pairs >> 4).astype(np.uint8)
    return packed


def _default(x: Array, bits: int, symmetric: bool, scale_type: Any) -> Rounded:
    """What ORT's own kernels give (MLAS's BlockwiseQuantizer), several times as fast.

    On x86-64 bit for bit, but for the sign of a scale that is zero; elsewhere a compiler may have fused the product and
    the sum before the rounding, which can move a weight that lies half-way by one level.

    Symmetric: the scale may be negative, so that the block's largest weight falls on the end of the range
    that is one longer. Otherwise from the block's smallest to its largest weight, zero within.
    """
    top = np.float32(2**bits - 1)
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    middle = np.float32(2 ** (bits - 1))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if symmetric:
            scale = np.where(np.abs(high) > np.abs(low), high, low) / -middle
            zero = np.full_like(scale, middle)
        else:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
            scale = (high - low) / top
            zero = np.where(scale == 0, 0, np.trunc(np.clip(-low / scale, 0, top) + _HALF))
        scale = scale.astype(scale_type)
        inverse = np.where(scale == 0, 0, 1 / scale.astype(np.float32))
        level = x * inverse
        level += zero
        np.clip(level, 0, top, out=level)
        level += _HALF
        return level.astype(np.uint8), scale, zero.astype(np.uint8)


def _rtn(x: Array, bits: int, symmetric: bool, scale_type: Any) -> Rounded:
    """Round to nearest, from the block's smallest to its largest weight."""
    top = 2**bits - 1
    low, high = x.min(1, keepdims=True).astype(np.float64), x.max(1, keepdims=True).astype(np.float64)
    if symmetric:
        scale = 2 * np.maximum(np.abs(low), np.abs(high)) / top
        scale[scale == 0] = 1
        zero = np.full_like(scale, 2 ** (bits - 1))
    else:
        scale = (high - low) / top
        scale[scale == 0] = 1
        zero = np.rint(-low / scale).clip(0, top)
    return np.rint(x / scale + zero).clip(0, top).astype(np.uint8), scale.astype(scale_type), zero.astype(np.uint8)
