"""The small products of LoRA, in fp32 even where activations are bf16, on the matrix units for bf16.

A product of two bf16 matrices is exact until it is added up, and that is done in fp32. So an fp32 matrix is held as the
sum of two bf16 ones, 16 bits of precision in place of 8, and multiplied by parts: the ranks that LoRA has are far below
the width of these units, which are no slower for twice or three times as many columns. (Henry et al. 2019,
"Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations", arXiv 1904.06376.)

Shapes are [adapters, …]. *Wide* is fp32 (or fp64), *narrow* the type of the activations. Where these are the same, the
parts are the matrices themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

_NARROW = (torch.bfloat16, torch.float16)


def factor(matrix: Tensor, narrow: torch.dtype) -> Tensor:
    """The parts of a wide matrix [r, d] to multiply with: high, high and low, [3 r, d]."""
    if narrow not in _NARROW:
        return matrix
    high, low = _halves(matrix, narrow)
    return torch.cat((high, high, low), dim=-2)


def spread(inner: Tensor, narrow: torch.dtype) -> Tensor:
    """The parts of a wide inner result [tokens, r] that fit those of a factor: high, low and high, [tokens, 3 r]."""
    if narrow not in _NARROW:
        return inner
    high, low = _halves(inner, narrow)
    return torch.cat((high, low, high), dim=-1)


def shrink(x: Tensor, factors: Tensor) -> Tensor:
    """x [tokens, d] times the transpose of a factor: [tokens, r], wide."""
    if x.dtype not in _NARROW:
        return _product(x, factors.mT)
    high, low = _wide_product(x, factors[:, factors.shape[1] // 3 :].mT).chunk(2, dim=-1)
    return high + low


def grow(inner: Tensor, factors: Tensor) -> Tensor:
    """What was spread times a factor: [tokens, d], in the type that it was spread in."""
    return _product(inner, factors)


def grown(inner: Tensor, factors: Tensor) -> Tensor:
    """What was spread times a factor: [tokens, d], wide."""
    return _wide_product(inner, factors)


def outer(x: Tensor, inner: Tensor) -> Tensor:
    """The transpose of x [tokens, d] times what was spread: [d, r], wide."""
    if x.dtype not in _NARROW:
        return _product(x.mT, inner)
    high, low = _wide_product(x.mT, inner[..., : 2 * inner.shape[-1] // 3]).chunk(2, dim=-1)
    return high + low


def outer_transposed(inner: Tensor, x: Tensor) -> Tensor:
    """The transpose of ``outer``: [r, d], wide."""
    if x.dtype not in _NARROW:
        return _product(inner.mT, x)
    high, low = _wide_product(inner[..., : 2 * inner.shape[-1] // 3].mT, x).chunk(2, dim=-2)
    return high + low


def add_frozen(total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """``total`` [adapters, tokens, d] + x [rows, tokens, i] times a frozen weight [i, d], in the memory of ``total``.

    Added where the matrix units add up, so that the large product is rounded once, with the small one in it, and no
    pass over memory adds two large results.
    """
    flat, rows = total.view(-1, total.shape[-1]), x.reshape(-1, x.shape[-1])
    if torch.compiler.is_compiling():
        _add_product(flat, rows, weight)
    else:
        flat.addmm_(rows, weight)
    return total


@torch.library.custom_op("autotune::add_product", mutates_args=("total",))
def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """What a compiler is not to take apart: it would copy ``total`` first."""
    total.addmm_(a, b)


def _halves(wide: Tensor, narrow: torch.dtype) -> tuple[Tensor, Tensor]:
    high = wide.to(narrow)
    return high, (wide - high).to(narrow)


def _product(a: Tensor, b: Tensor) -> Tensor:
    # One matrix alone goes to the kernel that spreads it over all cores.
    return torch.mm(a[0], b[0]).unsqueeze(0) if a.shape[0] == 1 else torch.bmm(a, b)


def _wide_product(a: Tensor, b: Tensor) -> Tensor:
    """A product as the matrix units add it up."""
    if a.dtype not in _NARROW:
        return _product(a, b)
    if a.is_cuda:
        return torch.bmm(a, b, out_dtype=torch.float32)
    return _product(a.float(), b.float())
