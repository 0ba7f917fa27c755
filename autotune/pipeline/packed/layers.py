"""A frozen linear module with stacked LoRA matrices: y = W x + s B A x, with A and B of each adapter for its own rows.

The frozen product is one for all rows; the small ones are batched by adapter. The weight's gradient is never made.
Matrices, their gradients and the small products are fp32 (fp64 for a base in fp64) whatever the base's type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from autotune.pipeline.packed.dropout import Noise
from autotune.pipeline.packed.products import add_frozen, factor, grow, grown, outer, outer_transposed, shrink, spread


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
    many rows, ``noise`` without dropout. With ``widen`` inputs become fp32 first, where nothing multiplies bf16 well.
    """

    scale: torch.Tensor
    widen: bool = False
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
        y: torch.Tensor
        if self.plain and shared.groups is None and shared.noise is None and not shared.widen:
            y = _FrozenLinear.apply(x, self.base.weight, self.base.bias, down, up, scale)  # type: ignore[no-untyped-call]
            return y
        y = self.base(x)
        z = x
        if shared.noise is not None or shared.widen:
            z = x.to(down.dtype)
        if shared.noise is not None:
            z = z * shared.noise.of(z, self)
        if shared.groups is not None:
            z = z.index_select(0, shared.groups.gather)
        delta = _Adapters.apply(z.reshape(len(down), -1, z.shape[-1]), down, up, scale)  # type: ignore[no-untyped-call]
        delta = delta.view(*z.shape[:-1], -1)
        if shared.groups is not None:
            delta = delta.index_select(0, shared.groups.scatter)
        y = (y + delta).to(y.dtype)
        return y


class _FrozenLinear(torch.autograd.Function):
    """W x + s B A x in one piece, so that neither direction adds two large results in a pass of its own."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
        down: torch.Tensor, up: torch.Tensor, scale: torch.Tensor,
    ) -> torch.Tensor:
        adapters = down.shape[0]
        downs, ups = factor(down, x.dtype), factor((up * scale.view(-1, 1, 1)).mT, x.dtype)
        grouped = x.reshape(adapters, -1, x.shape[-1])
        inner = spread(shrink(grouped, downs), x.dtype)
        y = add_frozen(grow(inner, ups), grouped, weight.T).view(*x.shape[:-1], -1)
        ctx.save_for_backward(x, weight, downs, ups, scale, inner)
        return y if bias is None else y + bias

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        x, weight, downs, ups, scale, inner = ctx.saved_tensors
        adapters = downs.shape[0]
        grouped, dy_ = x.reshape(adapters, -1, x.shape[-1]), dy.reshape(adapters, -1, dy.shape[-1])
        dinner = spread(shrink(dy_, ups), x.dtype)
        dx = add_frozen(grow(dinner, downs), dy_, weight).view_as(x) if ctx.needs_input_grad[0] else None
        return dx, None, None, outer_transposed(dinner, grouped), outer(dy_, inner) * scale.view(-1, 1, 1), None


class _Adapters(torch.autograd.Function):
    """s B A z in fp32 (fp64), for z [adapters, tokens, inputs]."""

    @staticmethod
    def forward(
        ctx: Any, z: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        downs, ups = factor(down, z.dtype), factor((up * scale.view(-1, 1, 1)).mT, z.dtype)
        inner = spread(shrink(z, downs), z.dtype)
        ctx.save_for_backward(z, downs, ups, scale, inner)
        return grown(inner, ups)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        z, downs, ups, scale, inner = ctx.saved_tensors
        # What comes back is rounded as the module's result was.
        narrow = dy.to(z.dtype)
        dinner = spread(shrink(narrow, ups), z.dtype)
        dz = grown(dinner, downs).to(z.dtype) if ctx.needs_input_grad[0] else None
        return dz, outer_transposed(dinner, z), outer(narrow, inner) * scale.view(-1, 1, 1), None
