"""A frozen linear module with stacked LoRA matrices: y = W x + s B A x, with A and B of each adapter for its own rows.

The frozen product is one for all rows; the small ones are batched by adapter. The weight's gradient is never made. What
a rank-r product is made of stays in the base's type, or is fp32 where ``Shared.compute`` says so; matrices and
their gradients are fp32 (fp64 for a base in fp64) either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear

from autotune.pipeline.packed.dropout import Noise


@dataclass
class Groups:
    """Rows of adapters with unequal numbers of them: ``gather`` [adapters × most] repeats an adapter's own first row
    up to the most that any has, ``scatter`` [rows] finds the true rows again.
    """

    gather: torch.Tensor
    scatter: torch.Tensor


@dataclass
class Shared:
    """What all modules of a stack read: the scale s [adapters], and how the rows at hand belong to adapters.

    ``chosen`` are the adapters whose rows these are (None: all); ``groups`` is None where all have equally
    many rows, ``noise`` without dropout. ``compute`` is the type of the small products (None: the input's).
    """

    scale: torch.Tensor
    compute: torch.dtype | None = None
    chosen: torch.Tensor | None = None
    groups: Groups | None = None
    noise: Noise | None = None


class PackedLinear(torch.nn.Module):
    """``base`` with the matrices ``down`` [adapters, rank, inputs] and ``up`` [adapters, outputs, rank].

    Takes [rows, tokens, inputs], the rows of one adapter after the other.
    """

    def __init__(self, base: Any, name: str, number: int, shared: Shared) -> None:
        super().__init__()
        self.base = base
        self.name = name
        self.number = torch.tensor(number, device=base.weight.device)
        self.shared = shared
        self.plain = type(base) is torch.nn.Linear
        self.down = self.up = torch.nn.Parameter(torch.empty(0))

    def bind(self, down: torch.Tensor, up: torch.Tensor, grads: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Use these matrices; backward adds to ``grads``."""
        self.down, self.up = torch.nn.Parameter(down), torch.nn.Parameter(up)
        self.down.grad, self.up.grad = grads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shared = self.shared
        down: torch.Tensor = self.down
        up: torch.Tensor = self.up
        scale = shared.scale
        if shared.chosen is not None:
            down, up, scale = down[shared.chosen], up[shared.chosen], scale[shared.chosen]
        compute = shared.compute or x.dtype
        if self.plain and compute == x.dtype and shared.groups is None and shared.noise is None:
            whole: torch.Tensor = _FrozenLinear.apply(x, self.base.weight, self.base.bias, down, up, scale)  # type: ignore[no-untyped-call]
            return whole
        y = self.base(x)
        z = x.to(compute)
        if shared.noise is not None:
            z = z * shared.noise.of(z, self)
        if shared.groups is not None:
            z = z.index_select(0, shared.groups.gather)
        delta = _Adapters.apply(z.reshape(len(down), -1, z.shape[-1]), down, up, scale)  # type: ignore[no-untyped-call]
        delta = delta.view(*z.shape[:-1], -1)
        if shared.groups is not None:
            delta = delta.index_select(0, shared.groups.scatter)
        summed: torch.Tensor = (y + delta).to(y.dtype)
        return summed


class _FrozenLinear(torch.autograd.Function):
    """W x + s B A x in one piece, so that neither direction adds two large results in a pass of its own."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
        down: torch.Tensor, up: torch.Tensor, scale: torch.Tensor,
    ) -> torch.Tensor:
        adapters = down.shape[0]
        grouped = x.reshape(adapters, -1, x.shape[-1])
        down_, up_ = down.to(x.dtype), _scaled(up, scale, x.dtype)
        inner = _product(grouped, down_.mT)
        y = _add_product(linear(x, weight, bias).view(adapters, -1, weight.shape[0]), inner, up_.mT)
        ctx.save_for_backward(x, weight, down_, up_, scale, inner)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        x, weight, down, up, scale, inner = ctx.saved_tensors
        adapters = down.shape[0]
        grouped, dy_ = x.reshape(adapters, -1, x.shape[-1]), dy.reshape(adapters, -1, dy.shape[-1])
        dinner, ddown, dup = _small_gradients(grouped, dy_, up, scale, inner)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = _add_product(torch.matmul(dy_, weight), dinner, down).view_as(x)
        return dx, None, None, ddown, dup, None


class _Adapters(torch.autograd.Function):
    """s B A z, for z [adapters, tokens, inputs]."""

    @staticmethod
    def forward(
        ctx: Any, z: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        down_, up_ = down.to(z.dtype), _scaled(up, scale, z.dtype)
        inner = _product(z, down_.mT)
        ctx.save_for_backward(z, down_, up_, scale, inner)
        return _product(inner, up_.mT)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        z, down, up, scale, inner = ctx.saved_tensors
        dinner, ddown, dup = _small_gradients(z, dy, up, scale, inner)
        return _product(dinner, down) if ctx.needs_input_grad[0] else None, ddown, dup, None


def _small_gradients(
    z: torch.Tensor, dy: torch.Tensor, up: torch.Tensor, scale: torch.Tensor, inner: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of ``inner`` (A z), in its own type, and of A and B, in fp32 at least."""
    dinner = _product(dy, up)
    return dinner, _wide_product(dinner.mT, z), _wide_product(dy.mT, inner) * scale.view(-1, 1, 1)


def _scaled(up: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return (up * scale.view(-1, 1, 1)).to(dtype)


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # One matrix alone goes to the kernel that spreads it over all cores.
    return torch.mm(a[0], b[0]).unsqueeze(0) if a.shape[0] == 1 else torch.bmm(a, b)


def _add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``total`` + a b; in the memory of ``total``, unless a compiler can add while it does something else."""
    if torch.compiler.is_compiling():
        return total + _product(a, b)
    if a.shape[0] == 1:
        total[0].addmm_(a[0], b[0])
        return total
    return total.baddbmm_(a, b)


def _wide_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A product of bf16 matrices as the matrix units add it up, in fp32; of others as ever."""
    if a.dtype not in (torch.bfloat16, torch.float16):
        return _product(a, b)
    if a.is_cuda:
        return torch.bmm(a, b, out_dtype=torch.float32)
    return _product(a.float(), b.float())
