"""Products of bf16 activations with fp32 matrices keep the precision of fp32, and others are plain products."""

from __future__ import annotations

import pytest
import torch

from autotune.pipeline.packed.products import add_frozen, factor, grow, grown, outer, outer_transposed, shrink, spread

ADAPTERS, TOKENS, WIDTH, RANK = 3, 50, 40, 4


@pytest.mark.parametrize(("narrow", "limit"), [(torch.bfloat16, 3e-5), (torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("adapters", [1, ADAPTERS])
def test_products_are_those_of_the_wide_matrices(narrow: torch.dtype, limit: float, adapters: int) -> None:
    torch.manual_seed(0)
    wide = torch.promote_types(narrow, torch.float32)
    x = torch.randn(adapters, TOKENS, WIDTH).to(narrow)
    matrix, inner = torch.randn(adapters, RANK, WIDTH, dtype=wide), torch.randn(adapters, TOKENS, RANK, dtype=wide)
    parts, spreads = factor(matrix, narrow), spread(inner, narrow)
    for found, true in (
        (shrink(x, parts), x.double() @ matrix.double().mT),
        (grown(spreads, parts), inner.double() @ matrix.double()),
        (outer(x, spreads), x.double().mT @ inner.double()),
        (outer_transposed(spreads, x), inner.double().mT @ x.double()),
    ):
        assert found.dtype == wide
        assert float((found - true).norm() / true.norm()) < limit
    onto, frozen = torch.randn(2 * adapters, TOKENS // 2, WIDTH).to(narrow), torch.randn(WIDTH, WIDTH).to(narrow)
    total = grow(spreads, parts)
    assert total.dtype == narrow
    wanted = (onto.double() @ frozen.double()).view(adapters, TOKENS, WIDTH) + inner.double() @ matrix.double()
    found = add_frozen(total, onto, frozen)
    assert found.data_ptr() == total.data_ptr()
    assert float((found - wanted).norm() / wanted.norm()) < max(limit, 2.5e-3 if narrow == torch.bfloat16 else 0)
