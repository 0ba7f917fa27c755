"""Artifacts of every architecture at every CPU precision: real ModelBuilder, real ONNX Runtime GenAI."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime_genai as og
import pytest

from autotune.errors import AssemblyError
from search_spaces.deploy import DeployParams
from tests import tiny
from tests.running import (
    PROMPT,
    answer,
    build,
    data_of,
    logits,
    model_of,
    operators,
    torch_answer,
    torch_logits,
)

QUANTIZED = {
    "int8": DeployParams("int8"),
    "int8-asym": DeployParams("int8", symmetric=False),
    "int4": DeployParams("int4"),
    "int4-asym": DeployParams("int4", symmetric=False),
}
MORE = {
    "int4-k_quant": DeployParams("int4", algorithm="k_quant"),
    "int4-rtn": DeployParams("int4", algorithm="rtn"),
    "int4-rtn-asym": DeployParams("int4", algorithm="rtn", symmetric=False),
    "int8-k_quant": DeployParams("int8", algorithm="k_quant"),
    "int4-head": DeployParams("int4", int8_where="head"),
    "int4-mixed": DeployParams("int4", int8_where="mixed_layers"),
    "int4-k_quant-head": DeployParams("int4", algorithm="k_quant", int8_where="head"),
    "int4-b64": DeployParams("int4", block_size=64),
    "int4-k_quant-b64": DeployParams("int4", algorithm="k_quant", block_size=64),
    "int4-acc1": DeployParams("int4", accuracy_level=1),
    "int4-fullhead": DeployParams("int4", prune_head=False),
}

@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_float_artifact_answers_as_torch_does(architecture, precision, tmp_path):
    source = model_of(architecture)
    info = build(source, tmp_path / "a", DeployParams(precision), "cpu", 256)
    expected, found = torch_logits(source), logits(info.path)
    # Of a tiny model fp16 storage touches the embedding and the head alone: the rest is too small.
    assert np.abs(expected - found).max() <= (1e-5 if precision == "fp32" else 1e-2) * np.abs(expected).max()
    tokens = torch_answer(source)
    assert answer(info.path) == tokens[: tokens.index(1) + 1 if 1 in tokens else None]


@pytest.mark.parametrize("recipe", QUANTIZED)
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_quantized_artifact_stays_near_torch(architecture, recipe, tmp_path):
    _stays_near(model_of(architecture), tmp_path, QUANTIZED[recipe])


@pytest.mark.parametrize("recipe", MORE)
@pytest.mark.parametrize("architecture", ["llama", "llama_untied", "gemma3", "phi3"])
def test_every_recipe_stays_near_torch(architecture, recipe, tmp_path):
    _stays_near(model_of(architecture), tmp_path, MORE[recipe])


def _stays_near(source: Path, tmp_path: Path, params: DeployParams) -> None:
    info = build(source, tmp_path / "a", params, "cpu", 256)
    expected, found = torch_logits(source), logits(info.path)
    assert np.isfinite(found).all()
    correlation = np.corrcoef(expected, found)[0, 1]
    assert correlation > (0.99 if params.precision == "int8" else 0.6), correlation
    assert "GatherBlockQuantized" in operators(info.path)


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3"])
def test_sliding_window_models_take_a_short_max_length(architecture, tmp_path):
    source = model_of(architecture)
    info = build(source, tmp_path / "a", DeployParams("fp32"), "cpu", 512)
    assert info.min_generator_length == 1
    short = tuple(range(5, 20))
    for ids, length in ((short, 20), (PROMPT, 50), (tuple(5 + i % 300 for i in range(200)), 220)):
        assert np.abs(torch_logits(source, ids) - logits(info.path, ids, length)).max() < 1e-4


def test_long_contexts_keep_the_windowed_cache_and_say_what_it_needs(tmp_path):
    source = model_of("gemma3", max_position_embeddings=16384)
    info = build(source, tmp_path / "a", DeployParams("fp32"), "cpu", None)
    assert info.min_generator_length == 64
    for ids, length in ((PROMPT, 64), (tuple(5 + i % 300 for i in range(200)), 220)):
        assert np.abs(torch_logits(source, ids) - logits(info.path, ids, length)).max() < 1e-4
    with pytest.raises(Exception, match="sliding_window_cache"):
        logits(info.path, PROMPT, 63)


def test_artifact_is_complete_and_nothing_else(tmp_path, capfd):
    info = build(model_of("gemma3"), tmp_path / "a", DeployParams("int4"), "cpu", 256)
    files = {file.name: file.stat().st_size for file in (tmp_path / "a").rglob("*")}
    assert {"model.onnx", "model.onnx.data", "genai_config.json", "tokenizer.json"} <= set(files)
    assert not [name for name in files if name.endswith((".tmp", ".lock", ".safetensors")) or name == "build"]
    assert info.size_bytes == sum(files.values())
    assert info.seconds > 0
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    tokenizer = og.Tokenizer(str(info.path))
    text = tokenizer.decode(np.array(answer(info.path), np.int32))
    assert isinstance(text, str)


@pytest.mark.parametrize(
    ("params", "provider", "context", "words"),
    [
        (DeployParams("bf16"), "cpu", None, "bf16"),
        (DeployParams("int8"), "dml", None, "DirectML"),
        (DeployParams("fp32"), "cpu", 4096, "4096 found; accepted is 1 to 2048"),
        (DeployParams("fp32"), "cpu", 0, "0 found"),
    ],
)
def test_impossible_points_are_refused_in_one_sentence(params, provider, context, words, tmp_path):
    with pytest.raises(AssemblyError, match=words) as caught:
        build(model_of("llama"), tmp_path / "a", params, provider, context)
    assert "\n" not in caught.value.reason


def test_builder_complaint_becomes_one_sentence(tmp_path):
    source = tiny.make_model(tmp_path / "m", "llama")
    config = json.loads((source / "config.json").read_text())
    config["architectures"] = ["UnheardOfForCausalLM"]
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(AssemblyError, match=r"ModelBuilder cannot export m at fp32: .*not currently supported"):
        build(source, tmp_path / "a", DeployParams("fp32"), "cpu", None)


@pytest.mark.parametrize("provider", ["cuda", "dml"])
@pytest.mark.parametrize("precision", ["fp16", "int4"])
def test_other_providers_build_here_though_they_run_elsewhere(provider, precision, tmp_path):
    info = build(model_of("gemma3"), tmp_path / "a", DeployParams(precision), provider, 256)
    config = json.loads((info.path / "genai_config.json").read_text())
    assert list(config["model"]["decoder"]["session_options"]["provider_options"][0]) == [provider]
    assert all(len(d) == 256 for name, d in data_of(info.path).items() if "_cache" in name)
