"""Edits of storage: half the file on the CPU EP, RoPE caches no longer than the context."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from autotune.pipeline import graph
from search_spaces.deploy import DeployParams
from tests import tiny
from tests.running import (
    answer,
    build,
    data_of,
    generator_for,
    logits,
    model_of,
    torch_logits,
)

LONGROPE = {
    "max_position_embeddings": 4096, "original_max_position_embeddings": 512,
    "rope_parameters": {
        "rope_type": "longrope", "type": "longrope", "rope_theta": 10000.0, "factor": 8.0,
        "original_max_position_embeddings": 512,
        "short_factor": [1.0 + i / 8 for i in range(8)], "long_factor": [2.0 + 3 * i for i in range(8)],
    },
}


@pytest.fixture(scope="module")
def longrope(tmp_path_factory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("longrope"), "phi3", **LONGROPE)


def test_fp16_on_cpu_is_half_the_file(tmp_path):
    source = model_of("llama_untied", vocab_size=16384)
    wide = build(source, tmp_path / "a", DeployParams("fp32"), "cpu", 64)
    half = build(source, tmp_path / "b", DeployParams("fp16"), "cpu", 64)
    data = [sum(f.stat().st_size for f in info.path.glob("*.data")) for info in (wide, half)]
    assert data[1] == pytest.approx(data[0] / 2, rel=0.06)
    exact, found = logits(wide.path), logits(half.path)
    assert 0 < np.abs(exact - found).max() <= 1e-2 * np.abs(exact).max()
    assert answer(wide.path) == answer(half.path)


def test_fp16_keeps_what_it_cannot_hold(tmp_path):
    source = model_of("llama_untied", vocab_size=1024)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    with torch.no_grad():
        model.get_input_embeddings().weight[7] *= 1e7
    model.save_pretrained(tmp_path / "source")
    tiny.tokenizer().save_pretrained(tmp_path / "source")
    info = build(tmp_path / "source", tmp_path / "a", DeployParams("fp16"), "cpu", 64)
    assert data_of(info.path)["model.embed_tokens.weight"].dtype == np.float32
    assert np.isfinite(logits(info.path)).all()


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gemma3", "phi3", "smollm3"])
def test_trimmed_caches_change_nothing_within_the_context(architecture, tmp_path):
    source = model_of(architecture)
    ids = tuple(5 + i % 300 for i in range(250))
    full = build(source, tmp_path / "full", DeployParams("fp32"), "cpu", None)
    cut = build(source, tmp_path / "cut", DeployParams("fp32"), "cpu", 256)
    rows = {name: len(data) for name, data in data_of(cut.path).items() if "_cache" in name}
    assert rows
    assert set(rows.values()) == {256}
    np.testing.assert_array_equal(logits(full.path, ids, 256), logits(cut.path, ids, 256))
    assert np.abs(torch_logits(source, ids) - logits(cut.path, ids, 256)).max() < 1e-4
    config = json.loads((cut.path / "genai_config.json").read_text())
    assert config["model"]["context_length"] == config["search"]["max_length"] == 256
    assert json.loads((cut.path / "tokenizer_config.json").read_text())["model_max_length"] == 256
    with pytest.raises(Exception, match="max_length"):
        generator_for(cut.path, ids, 257)


@pytest.mark.parametrize("context", [256, 512, 1024, None])
def test_longrope_agrees_with_torch_on_both_sides_of_its_original_context(context, longrope, tmp_path):
    info = build(longrope, tmp_path / "a", DeployParams("fp32"), "cpu", context)
    longest = context or 1100
    for length in (40, 250, 500, 600, 1000):
        if length >= longest:
            continue
        ids = tuple(5 + (i * 7) % 300 for i in range(length))
        expected, found = torch_logits(longrope, ids), logits(info.path, ids, longest)
        assert np.abs(expected - found).max() < 1e-4 * np.abs(expected).max(), length


def test_longrope_caches_in_one_tensor_keep_the_short_part(longrope, tmp_path):
    """DirectML reads short and long cache from one tensor, the long one from row 512 on."""
    full = build(longrope, tmp_path / "f", DeployParams("fp16"), "dml", None)
    cut = build(longrope, tmp_path / "c", DeployParams("fp16"), "dml", 1024)
    for name, data in data_of(cut.path).items():
        if "_cache" in name:
            assert len(data) == 512 + 1024
            np.testing.assert_array_equal(data, data_of(full.path)[name][: 512 + 1024])


@pytest.mark.parametrize(("before", "after"), [(1, [1, 7]), ([1, 7], [1, 7]), (7, 7), (None, [7])])
def test_generation_stops_at_the_id_that_training_put_behind_answers(
    tmp_path: Path, before: object, after: object
) -> None:
    path = tmp_path / "genai_config.json"
    path.write_text(json.dumps({"model": {"eos_token_id": before}}))
    graph.stop_at(tmp_path, 7)
    assert json.loads(path.read_text())["model"]["eos_token_id"] == after
