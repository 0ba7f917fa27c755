"""Dropout drops what its rate says, and the same for an adapter whatever it is packed with."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from autotune.pipeline.packed.dropout import DrawnNoise, Dropout, HashedNoise

CPU = torch.device("cpu")


@dataclass
class Place:
    name: str = "layers.0.q_proj"
    number: torch.Tensor = field(default_factory=lambda: torch.tensor(3))


def dropout(rate: float, seed: int, rows: int = 4, width: int = 6) -> Dropout:
    return Dropout(rate, torch.Generator().manual_seed(seed), frozenset({"layers.0.q_proj"}), rows, width)


def test_alone_it_is_what_torch_draws_after_the_same_seed() -> None:
    x = torch.randn(4, 6, 16)
    torch.manual_seed(7)
    wanted = torch.nn.functional.dropout(x, 0.3)
    assert torch.equal(x * DrawnNoise([dropout(0.3, 7)]).of(x, Place()), wanted)


@pytest.mark.parametrize("kind", [DrawnNoise, lambda adapters: HashedNoise(adapters, CPU)])
def test_company_and_padding_change_nothing(kind) -> None:
    alone = kind([dropout(0.3, 7)]).of(torch.empty(4, 6, 16), Place())
    packed = kind([dropout(0.5, 1, rows=2, width=9), dropout(0.3, 7), dropout(0.0, 2, rows=1)])
    found = packed.of(torch.empty(7, 9, 16), Place())
    assert torch.equal(found[2:6, :6], alone)
    assert torch.equal(found[6], torch.ones(9, 16))


def test_a_module_that_the_adapter_leaves_out_draws_nothing() -> None:
    adapter = dropout(0.5, 1)
    before = adapter.rng.get_state()
    assert torch.equal(DrawnNoise([adapter]).of(torch.empty(4, 6, 8), Place("layers.0.o_proj")), torch.ones(4, 6, 8))
    assert torch.equal(adapter.rng.get_state(), before)


def test_hashed_noise_is_fair_in_every_direction() -> None:
    adapters = [dropout(0.25, seed, rows=8, width=64) for seed in (1, 2)]
    first = HashedNoise(adapters, CPU)
    noise = first.of(torch.empty(16, 64, 256), Place())
    assert noise.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    dropped = (noise == 0).float()
    assert float(dropped.mean()) == pytest.approx(0.25, abs=0.005)
    for dim in range(3):
        others = [d for d in range(3) if d != dim]
        assert float((dropped.mean(dim=others) - 0.25).abs().max()) < 0.06
        # Neighbours do not follow one another.
        moved = dropped.roll(1, dims=dim)
        assert float((dropped * moved).mean()) == pytest.approx(0.0625, abs=0.004)
    again = HashedNoise(adapters, CPU).of(torch.empty(16, 64, 256), Place())
    elsewhere = first.of(torch.empty(16, 64, 256), Place(number=torch.tensor(4)))
    for other in (again, elsewhere, noise.roll(8, dims=0)):
        assert float(((noise == 0) & (other == 0)).float().mean()) == pytest.approx(0.0625, abs=0.004)
