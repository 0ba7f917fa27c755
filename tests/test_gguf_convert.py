"""A .gguf file becomes a folder that answers as its source does, or is refused for a reason."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from autotune.errors import BaseModelError
from autotune.pipeline.gguf_convert import convert
from autotune.pipeline.gguf_file import copy_without_vocabulary, read_header
from tests import tiny
from tests.tiny_gguf import write_gguf

TEXT = "### Text: the quick brown fox\n### The tone is:"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("llama"), "llama")


def logits(folder: Path, ids: list[int]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize(("architecture", "q8", "tolerance"), [("llama", False, 5e-3), ("llama_untied", True, 0.15)])
def test_round_trip(tmp_path: Path, architecture: str, q8: bool, tolerance: float) -> None:
    source = tiny.make_model(tmp_path / "source", architecture)
    file = write_gguf(source, tmp_path / "m.gguf", q8=q8)
    out = tmp_path / "out"
    notes: list[str] = []
    convert(file, out, lambda done, total, note="": notes.append(note))
    ids = AutoTokenizer.from_pretrained(source)(TEXT).input_ids
    back = AutoTokenizer.from_pretrained(out)(TEXT).input_ids
    assert back == [2, *ids]  # the file asks for BOS, the source's own tokenizer adds none
    difference = (logits(source, back) - logits(out, back)).abs().max()
    assert difference < tolerance
    assert len(AutoTokenizer.from_pretrained(out)) == len(tiny.tokenizer())
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "float32"
    assert "quantization_config" not in config
    assert config["tie_word_embeddings"] == (architecture == "llama")
    assert sorted(p.name for p in out.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    readable = {bool((out / name).stat().st_mode & stat.S_IRGRP) for name in ("model.safetensors", "config.json")}
    assert len(readable) == 1
    assert notes[-1] == "converted"


@pytest.mark.parametrize(
    ("architecture", "changes", "name"),
    [
        ("qwen2", {}, "Qwen2ForCausalLM"),
        ("qwen3", {"head_dim": 32}, "Qwen3ForCausalLM"),
        ("phi3", {}, "Phi3ForCausalLM"),
        # 256 and the windowed layers' pattern are not in the file: transformers' values are the real models'.
        ("gemma2", {"query_pre_attn_scalar": 256}, "Gemma2ForCausalLM"),
        ("gemma3", {"query_pre_attn_scalar": 256, "num_hidden_layers": 6}, "Gemma3ForCausalLM"),
    ],
)
def test_every_mapped_architecture(tmp_path: Path, architecture: str, changes: dict[str, Any], name: str) -> None:
    source = tiny.make_model(tmp_path / "source", architecture, **changes)
    out = tmp_path / "out"
    convert(write_gguf(source, tmp_path / "m.gguf"), out)
    assert json.loads((out / "config.json").read_text())["architectures"] == [name]
    ids = AutoTokenizer.from_pretrained(out)(TEXT * 8).input_ids
    assert len(ids) > 64  # longer than the sliding window
    assert ids[0] == 2
    assert (logits(source, ids) - logits(out, ids)).abs().max() < 2e-2


def test_greedy_answer_is_the_source_s(llama: Path, tmp_path: Path) -> None:
    convert(write_gguf(llama, tmp_path / "m.gguf"), tmp_path / "out")
    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path / "out")(TEXT).input_ids])
    answers = [
        AutoModelForCausalLM.from_pretrained(folder).generate(ids, max_new_tokens=12, do_sample=False).tolist()
        for folder in (llama, tmp_path / "out")
    ]
    assert answers[0] == answers[1]


def test_without_bos(llama: Path, tmp_path: Path) -> None:
    convert(write_gguf(llama, tmp_path / "m.gguf", add_bos=False), tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("a").input_ids[0] != 2


def test_end_of_turn_ends_generation_too(llama: Path, tmp_path: Path) -> None:
    convert(write_gguf(llama, tmp_path / "m.gguf", keys={"tokenizer.ggml.eot_token_id": 7}), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [1, 7]


def test_chat_template_travels(llama: Path, tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    convert(write_gguf(llama, tmp_path / "m.gguf", keys={"tokenizer.chat_template": template}), tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == template


@pytest.mark.parametrize("architecture", ["gpt2", "granite", "smollm3", "gemma4"])
def test_unmapped_architecture_is_refused_by_name(llama: Path, tmp_path: Path, architecture: str) -> None:
    file = write_gguf(llama, tmp_path / "m.gguf", claims=architecture)
    with pytest.raises(BaseModelError) as caught:
        convert(file, tmp_path / "out")
    problem = caught.value.problems[0]
    assert (problem.where, problem.found) == ("general.architecture", repr(architecture))
    assert "gemma3" in problem.accepted
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": {"llama.rope.scaling.type": "yarn"}}, "scaled rotary positions .yarn."),
        ({"keys": {"llama.rope.scaling.factor": 8.0}}, "scaled rotary positions .8.0."),
        ({"extra": {"rope_freqs.weight": np.ones(8, np.float32)}}, "scaled rotary positions .rope_freqs.weight."),
        ({"keys": {"llama.expert_count": 8}}, "mixture of experts"),
        ({"extra": {"blk.0.attn_q.bias": np.ones(64, np.float32)}}, "21 tensors where LlamaForCausalLM has 20"),
        ({"drop": "blk.1.ffn_up.weight"}, "model.layers.1.mlp.up_proj.weight"),
        ({"keys": {"tokenizer.ggml.model": "bert"}}, "tokenizer"),
    ],
)  # fmt: skip
def test_what_conversion_would_lose_is_refused(
    llama: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = write_gguf(llama, tmp_path / "m.gguf", **changes)
    with pytest.raises(BaseModelError, match=message):
        convert(file, tmp_path / "out")


def test_header(llama: Path, tmp_path: Path) -> None:
    header = read_header(write_gguf(llama, tmp_path / "m.gguf", q8=True))
    assert header.architecture == "llama"
    assert header.own("block_count") == 2
    assert header.scalars["tokenizer.ggml.add_bos_token"] is True
    assert header.array_lengths["tokenizer.ggml.tokens"] == len(tiny.tokenizer())
    assert header.data_start % 32 == 0


def test_copy_without_vocabulary_keeps_every_tensor(llama: Path, tmp_path: Path) -> None:
    header = read_header(write_gguf(llama, tmp_path / "m.gguf", q8=True))
    copy_without_vocabulary(header, tmp_path / "slim.gguf")
    slim = read_header(tmp_path / "slim.gguf")
    assert slim.own("vocab_size") == len(tiny.tokenizer())
    assert "tokenizer.ggml.tokens" not in slim.array_lengths
    assert dict(slim.tensor_types) == dict(header.tensor_types)
    whole, cut = header.path.read_bytes(), slim.path.read_bytes()
    assert whole[header.data_start :] == cut[slim.data_start :]


@pytest.mark.parametrize("size", [0, 3, 20, 100, 1000])
def test_cut_off_files(llama: Path, tmp_path: Path, size: int) -> None:
    file = write_gguf(llama, tmp_path / "m.gguf")
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(BaseModelError, match="cannot be read: the file ends at byte"):
        read_header(file)


def test_cut_off_tensors(llama: Path, tmp_path: Path) -> None:
    file = write_gguf(llama, tmp_path / "m.gguf")
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(BaseModelError, match="cannot load it"):
        convert(file, tmp_path / "out")


def test_no_gguf_at_all(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"PK\x03\x04 something else entirely")
    with pytest.raises(BaseModelError, match="does not begin with the letters GGUF"):
        read_header(file)
    file.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 64)
    with pytest.raises(BaseModelError, match="a whole GGUF file"):
        read_header(file)
