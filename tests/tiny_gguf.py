"""Tiny .gguf files written with the gguf package, from the random models of ``tests.tiny``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, get_tensor_name_map, quantize
from transformers import AutoModelForCausalLM, AutoTokenizer

_NORMAL, _CONTROL, _BYTE = 1, 3, 6
_ARCHITECTURES = {name: key for key, name in MODEL_ARCH_NAMES.items()}


def write_gguf(
    model_dir: Path, file: Path, *, claims: str | None = None, q8: bool = False, keys: dict[str, Any] | None = None,
    drop: str | None = None, extra: dict[str, np.ndarray] | None = None, add_bos: bool = True,
) -> Path:
    """Write a folder as llama.cpp would: same tensors under its names, Llama's query and key rows reordered,
    1 added to Gemma's norms.

    ``claims`` is what the header calls the architecture in place of the true name, ``keys`` are further
    keys of the header (uint32, float32 or text), ``drop`` a tensor to leave out, ``extra`` tensors to add.
    """
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    config = model.config
    architecture = {"gemma3_text": "gemma3"}.get(config.model_type, config.model_type)
    writer = GGUFWriter(file, claims or architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    rope = config.rope_parameters
    writer.add_rope_freq_base(float(rope.get("full_attention", rope)["rope_theta"]))
    if architecture.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    keys = dict(keys or {})
    vocabulary_kind = keys.pop("tokenizer.ggml.model", "gpt2")
    for key, value in keys.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(key, value)
    if architecture.startswith("gemma"):
        _add_sentencepiece(writer, config.vocab_size)
    else:
        _add_tokenizer(writer, model_dir, add_bos, vocabulary_kind)
    name_map = get_tensor_name_map(_ARCHITECTURES[architecture], config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        module, kind = name.rsplit(".", 1)
        target = f"{name_map.get_name(module)}.{kind}"
        values = tensor.float().numpy()
        if target.endswith(("attn_q.weight", "attn_k.weight")) and architecture == "llama":
            heads = config.num_attention_heads if "attn_q" in target else config.num_key_value_heads
            values = _interleave(values, heads)
        if target.endswith("norm.weight") and architecture.startswith("gemma"):
            values = values + 1
        if target != drop:
            _add_tensor(writer, target, values, q8)
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tensor(writer: GGUFWriter, name: str, values: np.ndarray, q8: bool) -> None:
    if values.ndim == 1:
        writer.add_tensor(name, values)
    elif q8:
        packed = quantize(values, GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
    else:
        writer.add_tensor(name, values.astype(np.float16))


def _add_tokenizer(writer: GGUFWriter, model_dir: Path, add_bos: bool, kind: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL if i in special else _NORMAL for i in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_add_bos_token(add_bos)


def _add_sentencepiece(writer: GGUFWriter, size: int) -> None:
    """Gemma's kind of vocabulary: special tokens, bytes, characters, pieces; scores in place of merges."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    raw_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    characters = ["▁", *(chr(code) for code in range(33, 127))]
    pieces = ["▁t", "he", "▁the", "in", "er", "on", "an", "re", "▁to", "ne", "is", "is:", "##", "###"]
    tokens = [*special, *raw_bytes, *characters, *pieces, "<mask>"]
    tokens += [f"<unused{i}>" for i in range(size - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(size)])
    writer.add_token_types([_CONTROL] * 4 + [_BYTE] * 256 + [_NORMAL] * (size - 260))
    for add, token in (
        (writer.add_pad_token_id, 0), (writer.add_eos_token_id, 1),
        (writer.add_bos_token_id, 2), (writer.add_unk_token_id, 3),
    ):  # fmt: skip
        add(token)
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(True)


def _interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rotary pairs side by side, as ggml's Llama kernels want them (Hugging Face keeps the halves apart)."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
