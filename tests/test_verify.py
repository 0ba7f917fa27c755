"""A right export is found right, a planted error is found, and the message blames the export."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import onnx
import pytest

from autotune.errors import ExportError
from autotune.pipeline.resident import release
from autotune.pipeline.train import train_adapter
from autotune.pipeline.verify import compare_logits, require_agreement, verify_logits
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams
from tests import tiny
from tests.running import build
from tests.test_train import DATA

PROMPTS = [tuple(range(5, 5 + n)) for n in (1, 7, 40)]


def exported(tmp_path, architecture="llama", precision="fp32"):
    source = tiny.make_model(tmp_path / "source", architecture)
    return source, build(source, tmp_path / "artifact", DeployParams(precision), "cpu", 256)


def own_files(folder):
    """Copies in place of hard links, as onnx reads (and a test may change) no file that others share."""
    for file in [f for f in folder.iterdir() if f.stat().st_nlink > 1]:
        copy = file.with_name("copy")
        shutil.copyfile(file, copy)
        copy.replace(file)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_right_export_agrees(architecture, tmp_path):
    source, info = exported(tmp_path, architecture)
    check = verify_logits(source, info.path, PROMPTS, "cpu", 1, info.min_generator_length)
    assert check.ok
    assert check.top1_agree == check.n == len(PROMPTS)
    assert check.relative < 1e-5
    require_agreement(check)


@pytest.mark.parametrize(
    "weight", ["model.layers.1.post_attention_layernorm.weight", "lm_head.MatMul.weight"]
)
def test_a_planted_export_error_is_found(weight, tmp_path):
    source, info = exported(tmp_path)
    own_files(info.path)
    path = info.path / "model.onnx"
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == weight)
    scaled = onnx.numpy_helper.to_array(tensor) * np.float32(1.01)
    tensor.CopyFrom(onnx.numpy_helper.from_array(scaled, weight))
    onnx.save(model, path)
    check = verify_logits(source, info.path, PROMPTS, "cpu", 1, info.min_generator_length)
    assert not check.ok
    with pytest.raises(ExportError) as caught:
        require_agreement(check)
    assert "the trial's parameters" in caught.value.reason
    assert f"{check.max_abs_delta:.3g}" in caught.value.reason
    assert f"{check.top1_agree} of {check.n}" in caught.value.reason


def test_an_artifact_of_another_model_does_not_pass(tmp_path):
    _, info = exported(tmp_path)
    other = tiny.make_model(tmp_path / "other", "llama", seed=1)
    check = verify_logits(other, info.path, PROMPTS, "cpu", 1, info.min_generator_length)
    assert not check.ok
    assert check.top1_agree < check.n


def test_a_windowed_cache_gets_the_length_it_needs(tmp_path):
    source = tiny.make_model(tmp_path / "source", "gemma3", max_position_embeddings=16384)
    info = build(source, tmp_path / "artifact", DeployParams("fp32"), "cpu", None)
    assert verify_logits(source, info.path, PROMPTS, "cpu", 1, info.min_generator_length).ok
    with pytest.raises(ExportError, match="does not run on cpu"):
        verify_logits(source, info.path, PROMPTS, "cpu", 1, 1)


def test_a_tie_counts_as_agreement_and_more_than_a_tie_does_not():
    torch_logits = np.array([10.0, 9.999, 0.0], np.float32)
    tie = compare_logits([torch_logits], [np.array([9.998, 10.001, 0.0], np.float32)])
    assert tie.ok
    assert tie.top1_agree == 1
    near = np.array([10.0, 9.99, 0.0], np.float32)
    clear = compare_logits([near], [np.array([9.995, 9.996, 0.0], np.float32)])
    assert clear.top1_agree == 0
    assert not clear.ok
    broken = compare_logits([torch_logits], [np.array([np.nan, 1.0, 0.0], np.float32)])
    assert not broken.ok
    assert broken.top1_agree == 0
    with pytest.raises(ExportError):
        require_agreement(dataclasses.replace(tie, ok=False))


@pytest.mark.parametrize("prompts", [[], [()]])
def test_nothing_to_compare_is_an_error_not_a_pass(prompts, tmp_path):
    with pytest.raises(ExportError, match="no prompts"):
        verify_logits(tmp_path, tmp_path, prompts, "cpu", 1, 1)


def test_the_base_that_training_holds_gives_the_same_logits_and_stays_trainable(tmp_path):
    source, info = exported(tmp_path, "gemma3")
    ask = (source, info.path, PROMPTS, "cpu", 1, info.min_generator_length)
    release()
    fresh = verify_logits(*ask)
    params = AdapterParams(rank=4, alpha=8, learning_rate=1e-2, steps=2, batch_size=4)
    train_adapter(source, DATA, params, tmp_path / "after", seed=0, device="cpu", threads=1)
    assert verify_logits(*ask) == fresh
    release()
    train_adapter(source, DATA, params, tmp_path / "fresh", seed=0, device="cpu", threads=1)
    name = "adapter_model.safetensors"
    assert (tmp_path / "after" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
