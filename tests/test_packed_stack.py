"""Rows of a stack step by AdamW each at its own rate, padding stays zero, and adapters come out as they went in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from autotune.pipeline.architectures import target_modules
from autotune.pipeline.packed.sites import Matrices, find_sites, fresh_matrices
from autotune.pipeline.packed.stack import Stack
from autotune.pipeline.peft_format import PREFIX
from tests import tiny
from tests.packing import frozen


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("models") / "llama", "llama")


def random_like(matrices: Matrices, seed: int) -> Matrices:
    torch.manual_seed(seed)
    kinds = [{n: torch.rand_like(t) for n, t in k.items()} for k in vars(matrices).values()]
    return Matrices(*kinds)


def stacked(model: Any, base: Path) -> tuple[Stack, list[tuple[Any, int, Matrices]]]:
    every = tuple(find_sites(model, target_modules(base, "all-linear")))
    stack = Stack(model, every, rank=8, capacity=3)
    held = []
    for row, (targets, rank) in enumerate((("qv", 2), ("all-linear", 8), ("mlp", 5))):
        suffixes = target_modules(base, targets)
        sites = [site for site in every if site.name.rpartition(".")[2] in suffixes]
        made = random_like(fresh_matrices(sites, rank, torch.float32, torch.Generator()), row)
        stack.put(row, made, 1.0, 4)
        held.append((sites, rank, made))
    stack.use(3)
    return stack, held


def test_fresh_matrices_are_pefts_after_the_same_seed(base: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        model = frozen(base, dtype)
        suffixes = target_modules(base, "all-linear")
        rng = torch.Generator().manual_seed(5)
        wide = torch.promote_types(dtype, torch.float32)
        found = fresh_matrices(find_sites(model, suffixes), 4, wide, rng).weights
        torch.manual_seed(5)
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=suffixes))
        wanted = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
        assert {PREFIX + name for name in found} == set(wanted)
        assert all(torch.equal(found[name.removeprefix(PREFIX)], tensor) for name, tensor in wanted.items())
        assert torch.equal(rng.get_state(), torch.random.get_rng_state())


def test_what_goes_in_comes_out_from_any_row(base: Path) -> None:
    model = frozen(base)
    stack, held = stacked(model, base)
    stack.move(2, 0)
    for row, (sites, rank, made) in ((0, held[2]), (1, held[1])):
        taken = stack.take(row, sites, rank)
        for kind, tensors in vars(made).items():
            assert vars(taken)[kind].keys() == tensors.keys()
            assert all(torch.equal(vars(taken)[kind][name], tensor) for name, tensor in tensors.items())


def test_a_step_is_adamws_and_padding_stays_zero(base: Path) -> None:
    model = frozen(base)
    stack, held = stacked(model, base)
    rates = [1e-2, 1e-3, 3e-2]
    ids = torch.randint(3, 300, (6, 7), generator=torch.Generator().manual_seed(0))
    stack.grads.zero_()
    model(input_ids=ids).logits.square().mean().backward()
    grads = [gradients(stack, row, made) for row, (_, _, made) in enumerate(held)]
    norms = stack.clip()
    stack.update(rates)
    for row, (sites, rank, made) in enumerate(held):
        parameters = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in made.weights.items()}
        optimizer = torch.optim.AdamW(parameters.values(), lr=rates[row], weight_decay=0.0, fused=True)
        for name, parameter in parameters.items():
            parameter.grad = grads[row][name]
            optimizer.state[parameter] = {
                "step": torch.tensor(4.0), "exp_avg": made.exp_avg[name].clone(),
                "exp_avg_sq": made.exp_avg_sq[name].clone(),
            }  # fmt: skip
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        taken = stack.take(row, sites, rank).weights
        assert float(norms[row]) == pytest.approx(float(norm), rel=1e-5)
        assert all(torch.allclose(taken[name], p.detach(), rtol=1e-6, atol=1e-7) for name, p in parameters.items())
    used = [sum(tensor.numel() for tensor in made.weights.values()) for _, _, made in held]
    assert [int((row != 0).sum()) for row in stack._values] == used


def gradients(stack: Stack, row: int, made: Matrices) -> dict[str, torch.Tensor]:
    """The gradients of a row by name, without padding."""
    views = stack._views(stack.grads[row])
    return {name: views[name][: t.shape[0], : t.shape[1]].clone() for name, t in made.weights.items()}


def test_removing_it_leaves_the_model_without_a_trace(base: Path) -> None:
    model = frozen(base)
    before = [(name, id(module)) for name, module in model.named_modules()]
    stack, _ = stacked(model, base)
    assert [(name, id(module)) for name, module in model.named_modules()] != before
    stack.remove()
    assert [(name, id(module)) for name, module in model.named_modules()] == before
    assert not any(parameter.requires_grad for parameter in model.parameters())
