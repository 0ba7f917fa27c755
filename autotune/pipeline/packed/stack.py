"""The matrices of adapters that train together, one row of memory each, with their gradients and AdamW's moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.adamw import adamw

from autotune.pipeline.packed.layers import PackedLinear, Shared
from autotune.pipeline.packed.sites import Matrices, Site, Tensors, master_dtype
from autotune.pipeline.recipe import CLIP, CLIP_EPSILON

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class Stack:
    """``capacity`` adapters of at most ``rank`` on ``sites`` of ``model``, whose modules are replaced until ``remove``.

    Smaller ranks, and modules that an adapter leaves out, are padded with zeros, which stay: where both A and
    B are zero, so are both gradients, and AdamW without weight decay leaves a zero that never had one.
    The first ``count`` rows are in use.
    """

    def __init__(
        self, model: Any, sites: tuple[Site, ...], rank: int, capacity: int, widen: bool = False
    ) -> None:
        self.sites = sites
        self.rank, self.capacity, self.count = rank, capacity, 0
        self._model = model
        #: Parameters of an adapter, padding included.
        self.size = sum(rank * (site.inputs + site.outputs) for site in sites)
        like = {"dtype": master_dtype(model), "device": model.device}
        self._values, self.grads, self._exp_avg, self._exp_avg_sq = (
            torch.zeros(capacity, self.size, **like) for _ in range(4)
        )
        self._scales = torch.zeros(capacity, **like)
        self._steps = torch.zeros(capacity, dtype=torch.float32, device=model.device)
        self.shared = Shared(self._scales[:0], widen)
        self._modules = [
            PackedLinear(model.get_submodule(site.name), site.name, number, self.shared)
            for number, site in enumerate(sites)
        ]
        for site, module in zip(self.sites, self._modules, strict=True):
            model.set_submodule(site.name, module)

    def remove(self) -> None:
        """Leave the model as it was."""
        for site, module in zip(self.sites, self._modules, strict=True):
            self._model.set_submodule(site.name, module.base)

    def holds(self, sites: Sequence[Site], rank: int) -> bool:
        """Whether an adapter of that rank on those modules fits."""
        return rank <= self.rank and set(sites) <= set(self.sites)

    def put(self, row: int, matrices: Matrices, scale: float, steps: int) -> None:
        """An adapter after ``steps`` steps into a row, whatever was there."""
        for memory, tensors in self._kinds(matrices):
            memory[row].zero_()
            for name, view in self._views(memory[row]).items():
                if name in tensors:
                    given = tensors[name]
                    view[: given.shape[0], : given.shape[1]] = given
        self._scales[row] = scale
        self._steps[row] = steps

    def take(self, row: int, sites: Sequence[Site], rank: int) -> Matrices:
        """Copies of a row's adapter, on the CPU and without padding."""
        wanted = {name for site in sites for name in site.names}
        kinds: list[Tensors] = []
        for memory in (self._values, self._exp_avg, self._exp_avg_sq):
            views = {name: view for name, view in self._views(memory[row]).items() if name in wanted}
            cut = {n: v[:rank] if n.endswith("lora_A.weight") else v[:, :rank] for n, v in views.items()}
            kinds.append({name: view.detach().cpu().clone() for name, view in cut.items()})
        return Matrices(*kinds)

    def move(self, source: int, target: int) -> None:
        """One row's adapter into another row, whatever was there."""
        if source != target:
            rows = (self._values, self._exp_avg, self._exp_avg_sq, self._scales, self._steps)
            for memory in rows:
                memory[target] = memory[source]

    def use(self, count: int) -> None:
        """From now on the first ``count`` rows train."""
        if count == self.count:
            return
        self.count = count
        self.shared.scale = self._scales[:count]
        start = 0
        for site, module in zip(self.sites, self._modules, strict=True):
            middle, end = start + self.rank * site.inputs, start + self.rank * (site.inputs + site.outputs)
            down = (count, self.rank, site.inputs)
            up = (count, site.outputs, self.rank)
            module.bind(
                self._values[:count, start:middle].view(down),
                self._values[:count, middle:end].view(up),
                (self.grads[:count, start:middle].view(down), self.grads[:count, middle:end].view(up)),
            )
            start = end

    def clip(self) -> torch.Tensor:
        """Scale each adapter's gradient to norm 1 at most; gives the norms [count] from before."""
        grads = self.grads[: self.count]
        norms: torch.Tensor = torch.linalg.vector_norm(grads, dim=1)
        grads.mul_((CLIP / (norms + CLIP_EPSILON)).clamp(max=1.0).unsqueeze(1))
        return norms

    def update(self, rates: Sequence[float]) -> None:
        """One step of AdamW without weight decay, at each adapter's learning rate."""
        with torch.no_grad():
            for row, rate in enumerate(rates):
                adamw(
                    [self._values[row]], [self.grads[row]], [self._exp_avg[row]], [self._exp_avg_sq[row]], [],
                    [self._steps[row]], fused=True, amsgrad=False, beta1=_BETA1, beta2=_BETA2, lr=rate,
                    weight_decay=0.0, eps=_EPSILON, maximize=False,
                )  # fmt: skip

    def _kinds(self, matrices: Matrices) -> list[tuple[torch.Tensor, Tensors]]:
        return [
            (self._values, matrices.weights),
            (self._exp_avg, matrices.exp_avg),
            (self._exp_avg_sq, matrices.exp_avg_sq),
        ]

    def _views(self, row: torch.Tensor) -> Tensors:
        """A and B of every module, by name, in one row of memory."""
        views: Tensors = {}
        start = 0
        for site in self.sites:
            middle, end = start + self.rank * site.inputs, start + self.rank * (site.inputs + site.outputs)
            down, up = site.names
            views[down] = row[start:middle].view(self.rank, site.inputs)
            views[up] = row[middle:end].view(site.outputs, self.rank)
            start = end
        return views
