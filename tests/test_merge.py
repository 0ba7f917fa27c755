"""Merging adapters that PEFT trained: to the last bit what PEFT's own merge gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from autotune.errors import AssemblyError
from autotune.pipeline.architectures import tensor_shapes
from autotune.pipeline.layer_weights import LayerWeight, Part
from autotune.pipeline.merge import MergedWeights
from tests import tiny
from tests.adapters import VARIANTS, load, make_adapter, merge_with_peft


def whole(base: Path, module: str) -> LayerWeight:
    rows = tensor_shapes(base)[f"{module}.weight"][0]
    return LayerWeight("any", "mlp", (Part(module, 0, rows),))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_every_matrix_is_pefts(architecture, variant, tmp_path):
    base = tiny.make_model(tmp_path / "base", architecture)
    targets = ("qkv_proj", "down_proj") if architecture == "phi3" else ("q_proj", "down_proj")
    make_adapter(base, tmp_path / "adapter", targets, **VARIANTS[variant])
    expected = load_file(merge_with_peft(base, tmp_path / "adapter", tmp_path / "merged") / "model.safetensors")
    with MergedWeights(base, tmp_path / "adapter") as weights:
        assert len(weights.modules()) == 4
        for module in weights.modules():
            weight = whole(base, module)
            assert weights.changes(weight)
            assert torch.equal(weights.matrix(weight), expected[f"{module}.weight"])
        untouched = whole(base, "model.layers.0.self_attn.o_proj")
        assert not weights.changes(untouched)
        assert torch.equal(weights.matrix(untouched), expected["model.layers.0.self_attn.o_proj.weight"])


def test_parts_are_put_below_each_other(tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    tensors = load_file(base / "model.safetensors")
    place = "model.layers.1.self_attn."
    weight = LayerWeight("any", "attention", (Part(f"{place}q_proj", 3, 9), Part(f"{place}k_proj", 0, 32)))
    with MergedWeights(base, None) as weights:
        expected = torch.cat([tensors[f"{place}q_proj.weight"][3:9], tensors[f"{place}k_proj.weight"]])
        assert torch.equal(weights.matrix(weight), expected)


def test_a_bf16_base_is_merged_in_fp32(tmp_path):
    base = tiny.make_model(tmp_path / "base", "qwen2")
    load(base, torch.bfloat16).save_pretrained(base)
    adapted = make_adapter(base, tmp_path / "adapter")
    with MergedWeights(base, tmp_path / "adapter") as weights:
        module = "model.layers.0.self_attn.q_proj"
        found = weights.matrix(whole(base, module))
    layer = adapted.base_model.model.model.layers[0].self_attn.q_proj
    np.testing.assert_allclose(found, (layer.base_layer.weight + layer.get_delta_weight("default")).detach(), atol=1e-6)
    assert not torch.equal(found, found.bfloat16().float())


def test_weights_in_several_files_are_found(tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    tensors = load_file(base / "model.safetensors")
    load(base).save_pretrained(tmp_path / "split", max_shard_size="100KB")
    assert len(list((tmp_path / "split").glob("*.safetensors"))) > 2
    with MergedWeights(tmp_path / "split", None) as weights:
        for module in ("model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj"):
            assert torch.equal(weights.matrix(whole(base, module)), tensors[f"{module}.weight"])


def test_an_adapter_of_another_model_is_refused(tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    make_adapter(tiny.make_model(tmp_path / "wider", "llama", hidden_size=128), tmp_path / "adapter")
    with pytest.raises(AssemblyError, match=r"\(64, 4\) by \(4, 128\)|accepted is what makes the base's \(64, 64\)"), \
            MergedWeights(base, tmp_path / "adapter") as weights:
        weights.matrix(whole(base, "model.layers.0.self_attn.q_proj"))
    make_adapter(tiny.make_model(tmp_path / "deeper", "llama", num_hidden_layers=3), tmp_path / "deep")
    with pytest.raises(AssemblyError, match=r"cannot be merged into base: model\.layers\.2"):
        MergedWeights(base, tmp_path / "deep")


def test_a_pickled_adapter_is_refused(tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    make_adapter(base, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(AssemblyError, match=r"adapter_model\.safetensors"):
        MergedWeights(base, tmp_path / "adapter")


def test_an_adapter_with_nan_is_refused(tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    make_adapter(base, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"][0, 0] = float("nan")
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(AssemblyError, match="not finite"), MergedWeights(base, tmp_path / "adapter") as weights:
        weights.matrix(whole(base, "model.layers.0.self_attn.q_proj"))


@pytest.mark.parametrize(("key", "value"), [("bias", "all"), ("rank_pattern", {"q_proj": 2}), ("peft_type", "IA3"),
                                            ("modules_to_save", ["lm_head"])])
def test_what_changes_more_than_layer_matrices_is_refused(key, value, tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    make_adapter(base, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(AssemblyError, match=key):
        MergedWeights(base, tmp_path / "adapter")


def test_a_cut_off_adapter_is_refused_in_one_sentence(tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    make_adapter(base, tmp_path / "adapter")
    shutil.copytree(tmp_path / "adapter", tmp_path / "cut")
    path = tmp_path / "cut" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(AssemblyError, match="cannot be read") as caught:
        MergedWeights(base, tmp_path / "cut")
    assert "\n" not in caught.value.reason
