"""Merging adapters that PEFT trained: the merged model computes what base plus adapter computes."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
import transformers

from autotune.errors import AssemblyError
from autotune.pipeline.assemble import assemble
from autotune.pipeline.merge import merge_adapter
from autotune.pipeline.verify import verify_logits
from search_spaces.deploy import DeployParams
from tests import tiny
from tests.running import PROMPT, logits

VARIANTS = {"lora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}


def load(folder, dtype=torch.float32):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def next_logits(model) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([PROMPT])).logits[0, -1].numpy()


def train_adapter(base, folder, targets=("q_proj", "v_proj", "down_proj"), **options):
    """An adapter away from its zero start, in PEFT's own format; returns the logits with it applied."""
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=4, lora_alpha=16, target_modules=list(targets), task_type="CAUSAL_LM", **options
    )
    model = peft.get_peft_model(load(base), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return next_logits(model)


@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_model_computes_what_the_adapter_computes(variant, tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    expected = train_adapter(base, tmp_path / "adapter", **VARIANTS[variant])
    merged = merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")
    assert np.abs(next_logits(load(base)) - expected).max() > 0.05
    np.testing.assert_allclose(next_logits(load(merged)), expected, atol=1e-5)
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json",
            "tokenizer_config.json"} <= {file.name for file in merged.iterdir()}
    info = assemble(merged, tmp_path / "artifact", DeployParams("fp32"), "cpu", 128)
    np.testing.assert_allclose(logits(info.path), expected, atol=1e-4)


@pytest.mark.parametrize("architecture", ["phi3", "gemma3"])
def test_fused_and_nested_architectures_merge(architecture, tmp_path):
    base = tiny.make_model(tmp_path / "base", architecture)
    targets = ("qkv_proj", "gate_up_proj") if architecture == "phi3" else ("q_proj", "gate_proj")
    expected = train_adapter(base, tmp_path / "adapter", targets)
    merged = merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")
    info = assemble(merged, tmp_path / "artifact", DeployParams("fp32"), "cpu", 128)
    np.testing.assert_allclose(logits(info.path), expected, atol=1e-4)


def test_a_bf16_base_is_merged_in_fp32(tmp_path):
    base = tiny.make_model(tmp_path / "base", "qwen2")
    load(base, torch.bfloat16).save_pretrained(base)
    expected = train_adapter(base, tmp_path / "adapter")
    merged = merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")
    again = transformers.AutoModelForCausalLM.from_pretrained(merged).eval()
    assert again.dtype == torch.float32
    np.testing.assert_allclose(next_logits(again), expected, atol=1e-5)


def test_merging_and_checking_are_silent(tmp_path, capfd):
    base = tiny.make_model(tmp_path / "base", "llama")
    train_adapter(base, tmp_path / "adapter")
    capfd.readouterr()
    merged = merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")
    info = assemble(merged, tmp_path / "artifact", DeployParams("fp32"), "cpu", 128)
    assert verify_logits(merged, info.path, [PROMPT], "cpu", 1, 1).ok
    assert capfd.readouterr() == ("", "")


def test_without_an_adapter_the_base_is_used_as_it_is(tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    assert merge_adapter(base, None, tmp_path / "merged") == base
    assert not (tmp_path / "merged").exists()


def test_an_adapter_of_another_model_is_refused(tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    other = tiny.make_model(tmp_path / "other", "llama", hidden_size=128)
    train_adapter(other, tmp_path / "adapter")
    with pytest.raises(AssemblyError, match="cannot be merged into base"):
        merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")


def test_a_pickled_adapter_is_refused(tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    train_adapter(base, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(AssemblyError, match=r"adapter_model\.safetensors"):
        merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")


def test_an_adapter_with_nan_is_refused(tmp_path):
    base = tiny.make_model(tmp_path / "base", "llama")
    train_adapter(base, tmp_path / "adapter")
    from safetensors.torch import load_file, save_file

    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(AssemblyError, match="cannot be merged"):
        merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")
