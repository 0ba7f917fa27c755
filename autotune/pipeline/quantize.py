"""Block-wise weight quantization, as MatMulNBits holds it.

ModelBuilder can quantize too, but by copying the whole model through protobuf messages and, for
k_quant, in numpy a matrix at a time, which takes minutes at 270M parameters. For the algorithms
``default`` and ``rtn`` the bytes are the builder's own (the same MLAS kernels); a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from autotune.pipeline.k_quant import k_quant
from search_spaces.deploy import Algorithm

Array = np.ndarray[Any, Any]

#: Levels [n, block], scales [n, 1] and zero points [n, 1] of blocks [n, block].
Rounded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Rounding = Callable[[torch.Tensor], Rounded]

#: Matrix rows at a time: the working copies of a 262,144-row head would otherwise take gigabytes.
_CHUNK = 8192

#: Weights rounded at a time: 1 MB in fp32, so that a piece fits a core's cache.
_CACHE_ELEMENTS = 2**18


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
    packed = np.zeros((rows, blocks, block * bits // 8), np.uint8)
    scales = np.zeros((rows, blocks), matrix.dtype)
    zeros = np.zeros((rows, -(-blocks * bits // 8)), np.uint8)
    for start in range(0, rows, _CHUNK):
        part = slice(start, min(start + _CHUNK, rows))
        padded = np.zeros((part.stop - part.start, blocks * block), matrix.dtype)
        padded[:, :columns] = matrix[part]
        if algorithm == "default":
            _mlas(padded, columns, bits, block, symmetric, packed[part], scales[part], zeros[part])
            continue
        flat = torch.from_numpy(padded).float().reshape(-1, block)
        if algorithm == "k_quant":
            levels, scale, zero = k_quant(flat, bits)
        else:
            levels, scale, zero = _in_pieces(flat, lambda piece: _rtn(piece, bits, symmetric))
        packed[part] = _pack(levels.reshape(-1, blocks * block), bits).reshape(packed[part].shape)
        scales[part] = scale.reshape(-1, blocks).numpy().astype(matrix.dtype)
        zeros[part] = _pack(zero.reshape(-1, blocks), bits)
    has_zeros = algorithm == "k_quant" or not symmetric
    return packed, scales, zeros if has_zeros else None


def _in_pieces(flat: torch.Tensor, round_blocks: Rounding) -> Rounded:
    """Round blocks [n, block] in pieces that fit a core's cache, one piece a thread.

    Threads of our own, because torch's meet after every operation: rounding has several short ones
    a piece, and on a machine that is busy otherwise that waiting made it ten times slower.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            pieces = list(pool.map(round_blocks, torch.split(flat, max(1, _CACHE_ELEMENTS // flat.shape[1]))))
    finally:
        torch.set_num_threads(threads)
    levels, scales, zeros = zip(*pieces, strict=True)
    return torch.cat(levels), torch.cat(scales), torch.cat(zeros)


def _mlas(
    padded: Array, columns: int, bits: int, block: int, symmetric: bool,
    packed: Array, scales: Array, zeros: Array,
) -> None:
    """ORT's own kernels. They write into ``packed``, ``scales`` and ``zeros``; at 8 bits symmetric scales
    may be negative, so that the block's largest weight falls on the end of the range that is one longer.
    """
    from onnxruntime.capi import _pybind_state as kernels

    kernel = {4: kernels.quantize_matmul_4bits, 8: kernels.quantize_matmul_8bits}[bits]
    kernel(packed, np.ascontiguousarray(padded.T), scales, zeros, block, len(padded), columns, symmetric)


def _pack(levels: torch.Tensor, bits: int) -> Array:
    """Levels [rows, n] as bytes [rows, ⌈n · bits / 8⌉]; an odd last nibble gets the middle of the range."""
    levels = levels.to(torch.uint8)
    if bits == 8:
        return levels.numpy()
    if levels.shape[1] % 2:
        levels = torch.nn.functional.pad(levels, (0, 1), value=8)
    return (levels[:, ::2] | (levels[:, 1::2] << 4)).numpy()


def _rtn(x: torch.Tensor, bits: int, symmetric: bool) -> Rounded:
    """Round to nearest, from the block's smallest to its largest weight."""
    top = 2**bits - 1
    low, high = x.amin(1, keepdim=True).double(), x.amax(1, keepdim=True).double()
    if symmetric:
        scale = 2 * torch.maximum(low.abs(), high.abs()) / top
        scale[scale == 0] = 1
        zero = torch.full_like(scale, 2 ** (bits - 1))
    else:
        scale = (high - low) / top
        scale[scale == 0] = 1
        zero = (-low / scale).round().clamp(0, top)
    return (x / scale + zero).round().clamp(0, top), scale, zero
