"""As many adapters together as memory holds, and on a CPU no more than what pays."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from autotune.pipeline.packed.width import WidthSearch, depends_on_length, saved_bytes, widest


def search(seconds: dict[int, float], most: int = 16) -> tuple[list[int], WidthSearch]:
    """Widths step by step, where a step of so many adapters with 100 tokens each takes those seconds."""
    found = WidthSearch(most)
    widths = []
    for _ in range(40):
        widths.append(found.width)
        found.add(found.width, seconds[found.width], 100 * found.width)
    return widths, found


def test_a_cpu_bound_by_arithmetic_trains_one_at_a_time() -> None:
    widths, found = search({n: 1.0 * n for n in (1, 2, 4)})
    assert found.width == 1
    assert widths.count(2) == 5
    assert set(widths[10:]) == {1}


def test_one_bound_by_overhead_trains_as_many_as_gain() -> None:
    widths, found = search({1: 1.0, 2: 1.1, 4: 1.4, 8: 2.9})
    assert found.width == 4
    assert widths[-1] == 4
    assert search({1: 1.0, 2: 1.01, 3: 1.02}, most=3)[1].width == 3
    assert search({1: 1.0, 2: 1.01, 3: 9.0}, most=3)[1].width == 2


def test_a_limit_of_memory_holds_from_then_on() -> None:
    found = WidthSearch(16)
    assert found.limit(2) == 1
    for _ in range(20):
        found.add(found.width, 1.0, 100 * found.width)
    assert found.width == 2
    assert found.limit(1) == 1
    assert found.add(1, 1.0, 100) == 1


def test_steps_of_another_number_of_adapters_are_not_timed() -> None:
    found = WidthSearch(4, width=2)
    for _ in range(20):
        found.add(1, 1.0, 100)
    assert found.width == 2


@pytest.mark.parametrize(("available", "count"), [(100.0, 7), (10.0, 1), (1e6, 8999)])
def test_memory_gives_the_number(available: float, count: int) -> None:
    assert widest(20.0, 10.0, available) == count or widest(20.0, 100.0, available) == count


def test_bytes_kept_for_backward_leave_the_weights_out() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 1000), torch.nn.ReLU(), torch.nn.Linear(1000, 1))
    x = torch.randn(4, 8, requires_grad=True)
    with saved_bytes(model) as count:
        model(x).sum().backward()
    assert 4 * 1000 * 4 <= count() <= 2.1 * 4 * 1000 * 4


def test_rotary_angles_that_change_with_length_are_seen() -> None:
    long = SimpleNamespace(
        rope_parameters={"rope_type": "longrope", "original_max_position_embeddings": 64}, max_position_embeddings=512
    )
    assert depends_on_length(long, 65)
    assert not depends_on_length(long, 64)
    plain = SimpleNamespace(rope_parameters={"rope_type": "llama3"}, max_position_embeddings=64)
    assert not depends_on_length(plain, 600)
    layers = SimpleNamespace(
        rope_parameters={"full_attention": {"rope_type": "dynamic"}, "sliding_attention": {"rope_type": "default"}},
        max_position_embeddings=64,
    )
    assert depends_on_length(layers, 65)
