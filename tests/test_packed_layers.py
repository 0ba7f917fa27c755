"""A packed linear module gives each adapter the outputs and gradients that W + sBA of its own would give."""

from __future__ import annotations

import copy

import pytest
import torch

from autotune.pipeline.packed.layers import Groups, PackedLinear, Shared

ADAPTERS, ROWS, TOKENS, INPUTS, OUTPUTS, RANK = 3, 2, 5, 12, 8, 4


def packed(dtype: torch.dtype = torch.float64, adapters: int = ADAPTERS, bias: bool = True) -> PackedLinear:
    torch.manual_seed(0)
    base = torch.nn.Linear(INPUTS, OUTPUTS, bias=bias, dtype=dtype).requires_grad_(False)
    wide = torch.promote_types(dtype, torch.float32)
    module = PackedLinear(base, "a.b", 0, Shared(torch.linspace(0.5, 2, adapters, dtype=wide)))
    down, up = torch.randn(adapters, RANK, INPUTS, dtype=wide), torch.randn(adapters, OUTPUTS, RANK, dtype=wide)
    module.bind(down, up, (torch.zeros_like(down), torch.zeros_like(up)))
    return module


def expected(module: PackedLinear, x: torch.Tensor, rows: list[int]) -> torch.Tensor:
    parts = []
    for i, own in enumerate(torch.split(x, rows)):
        weight = module.base.weight + module.shared.scale[i] * module.up[i] @ module.down[i]
        parts.append(torch.nn.functional.linear(own, weight, module.base.bias))
    return torch.cat(parts)


def gradients(module: PackedLinear, y: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return list(torch.autograd.grad(y, [x, module.down, module.up], torch.randn_like(y)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("adapters", [1, ADAPTERS])
@pytest.mark.parametrize("dropout", [False, True])
def test_outputs_and_gradients(adapters: int, bias: bool, dropout: bool) -> None:
    module = packed(adapters=adapters, bias=bias)
    x = torch.randn(adapters * ROWS, TOKENS, INPUTS, dtype=torch.float64, requires_grad=True)
    if dropout:  # factors of one are no dropout, but go the way that dropout goes
        class Ones:
            def of(self, z: torch.Tensor, place: object) -> torch.Tensor:
                return torch.ones_like(z)

        module.shared.noise = Ones()
    y, wanted = module(x), expected(module, x, [ROWS] * adapters)
    assert torch.allclose(y, wanted, rtol=1e-12)
    for found, true in zip(gradients(module, y, x), gradients(module, wanted, x), strict=True):
        assert torch.allclose(found, true, rtol=1e-10, atol=1e-12)


def test_unequal_numbers_of_rows() -> None:
    module = packed()
    rows = [1, 3, 2]
    module.shared.groups = Groups(torch.tensor([0, 0, 0, 1, 2, 3, 4, 5, 4]), torch.tensor([0, 3, 4, 5, 6, 7]))
    x = torch.randn(sum(rows), TOKENS, INPUTS, dtype=torch.float64, requires_grad=True)
    y, wanted = module(x), expected(module, x, rows)
    assert torch.allclose(y, wanted, rtol=1e-12)
    for found, true in zip(gradients(module, y, x), gradients(module, wanted, x), strict=True):
        assert torch.allclose(found, true, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("unequal", [False, True])
def test_what_is_not_finite_stays_with_its_adapter(unequal: bool) -> None:
    module = packed()
    if unequal:
        module.shared.groups = Groups(torch.tensor([0, 1, 2, 2, 3, 4]), torch.tensor([0, 1, 2, 4, 5]))
    x = torch.randn(5 if unequal else 6, TOKENS, INPUTS, dtype=torch.float64)
    x[0] = float("nan")
    x.requires_grad_()
    y = module(x)
    found = gradients(module, y, x)
    assert torch.isfinite(y[2:]).all()
    for gradient in found[1:]:
        assert torch.isfinite(gradient[1:]).all()
        assert not torch.isfinite(gradient[0]).all()


def test_some_adapters_alone() -> None:
    module = packed()
    x = torch.randn(2 * ROWS, TOKENS, INPUTS, dtype=torch.float64)
    module.shared.chosen = torch.tensor([2, 0])
    with torch.no_grad():
        found = module(x)
        module.shared.chosen = None
        doubled = module(torch.cat([x[ROWS:], x[:ROWS], x[:ROWS]]))
    assert torch.allclose(found, torch.cat([doubled[2 * ROWS :], doubled[:ROWS]]), rtol=1e-12)


@pytest.mark.parametrize("widen", [False, True])
def test_a_bf16_base_trains_matrices_in_fp32(widen: bool) -> None:
    module = packed(torch.bfloat16)
    module.shared.widen = widen
    x = torch.randn(ADAPTERS * ROWS, TOKENS, INPUTS, dtype=torch.bfloat16, requires_grad=True)
    y = module(x)
    assert y.dtype == torch.bfloat16
    exact = expected(copy.deepcopy(module).float(), x.float(), [ROWS] * ADAPTERS)
    assert float((y - exact).norm() / exact.norm()) < 1e-2
    y.backward(torch.ones_like(y))
    assert module.down.grad is not None
    assert module.down.grad.dtype == torch.float32
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("path", ["whole", "groups"])
def test_small_products_by_parts_are_as_good_as_in_fp32(path: str) -> None:
    module = packed(torch.bfloat16, bias=False)
    module.base.weight.zero_()
    x = torch.randn(ADAPTERS * ROWS, TOKENS, INPUTS, dtype=torch.bfloat16, requires_grad=True)
    if path == "groups":  # each row in its own place, but the way that unequal numbers of rows go
        module.shared.groups = Groups(torch.arange(len(x)), torch.arange(len(x)))
    y = module(x)
    exact = copy.deepcopy(module).double()
    wide = x.detach().double().requires_grad_()
    wanted = expected(exact, wide, [ROWS] * ADAPTERS)
    slope = torch.randn_like(y)
    found = torch.autograd.grad(y, [x, module.down, module.up], slope)
    true = torch.autograd.grad(wanted, [wide, exact.down, exact.up], slope.double())
    for one, other, limit in zip((y, *found), (wanted, *true), (4e-3, 4e-3, 3e-5, 3e-5), strict=True):
        assert float((one - other).norm() / other.norm()) < limit


def test_gradients_are_added_where_the_stack_has_them() -> None:
    module = packed()
    memory = torch.zeros(2, *module.down.shape, dtype=torch.float64)
    module.bind(module.down.detach(), module.up.detach(), (memory[1], torch.zeros_like(module.up)))
    x = torch.randn(ADAPTERS * ROWS, TOKENS, INPUTS, dtype=torch.float64)
    for _ in range(2):
        module(x).sum().backward()
    assert float(memory[0].abs().sum()) == 0
    once = torch.autograd.grad(module(x).sum(), module.down)[0]
    assert torch.allclose(memory[1], 2 * once)
