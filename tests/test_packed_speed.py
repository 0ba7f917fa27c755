"""What makes a step quicker changes no result, and is gone afterwards."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from autotune.pipeline.packed import speed
from autotune.pipeline.packed.batch import pack
from autotune.pipeline.packed.engine import train_packed
from tests import tiny
from tests.packing import distance, frozen, jobs, weights
from tests.test_train import DATA, EXAMPLES, PARAMS

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("models") / "llama", "llama")


def test_compiled_layers_train_the_same_and_are_gone_afterwards(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Traced as for any compiler, then run as it is: machine code takes most of a minute to make.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    model = frozen(base)
    few = [replace(PARAMS, steps=3), replace(PARAMS, steps=3, rank=3)]
    train_packed(model, base, DATA, jobs(tmp_path / "plain", few), width=2)
    torch._dynamo.utils.counters.clear()
    found = train_packed(model, base, DATA, jobs(tmp_path / "quick", few), width=2, speed="compiled")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    assert not [result for result in found if isinstance(result, Exception)]
    for job in jobs(tmp_path / "plain", few):
        assert distance(weights(tmp_path / "quick" / job.out.name), weights(job.out)) < 1e-3
    assert all("forward" not in vars(layer) for layer in model.model.layers)


def test_attention_without_masks_gives_the_same_hidden_states(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = frozen(base)
    ids = torch.randint(3, 300, (3, 9), generator=torch.Generator().manual_seed(0))
    before = model.model(ids).last_hidden_state
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    with speed.fast_attention(model, 9):
        assert model.config._attn_implementation == "causal_sdpa"
        found = model.model(ids).last_hidden_state
    assert model.config._attn_implementation == "sdpa"
    assert torch.allclose(found, before, atol=1e-6)
    model.config.sliding_window = 16
    with speed.fast_attention(model, 9):
        assert model.config._attn_implementation == "sdpa"


def test_shapes_are_rounded_up_on_a_gpu_and_what_is_added_counts_for_nothing() -> None:
    from autotune.pipeline.packed import batch as batches

    plain = pack([EXAMPLES[:2], EXAMPLES[2:4]], CPU)
    rounded, of = batches._round(plain.batch, plain.parts.of)
    assert rounded.ids.shape[1] % 32 == 0
    assert len(rounded.target) == len(of) == 64
    assert torch.equal(rounded.ids[:, : plain.batch.ids.shape[1]], plain.batch.ids)
    assert int((rounded.target != -100).sum()) == len(plain.batch.target)
