"""Tiny .gguf files written with the gguf package, from the random models of ``tests.tiny``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from transformers import AutoModelForCausalLM, AutoTokenizer

_LAYER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_CONTROL, _NORMAL = 3, 1


def write_gguf(
    model_dir: Path, file: Path, *, architecture: str = "llama", q8: bool = False, keys: dict[str, Any] | None = None,
    drop: str | None = None, extra: dict[str, np.ndarray] | None = None, add_bos: bool = True,
) -> Path:
    """Write a Llama folder as llama.cpp would: same tensors, its names, query and key rows reordered.

    ``keys`` are further keys of the header (uint32, float32 or text), ``drop`` a tensor to leave out.
    """
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    config = model.config
    writer = GGUFWriter(file, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    for key, value in (keys or {}).items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(key, value)
    _add_tokenizer(writer, model_dir, add_bos)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        target = _gguf_name(name)
        values = tensor.float().numpy()
        if target.endswith(("attn_q.weight", "attn_k.weight")) and architecture == "llama":
            heads = config.num_attention_heads if "attn_q" in target else config.num_key_value_heads
            values = _interleave(values, heads)
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


def _add_tokenizer(writer: GGUFWriter, model_dir: Path, add_bos: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL if i in special else _NORMAL for i in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(add_bos)


def _gguf_name(name: str) -> str:
    fixed = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}  # fmt: skip
    if name in fixed:
        return fixed[name]
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{_LAYER[module]}.{kind}"


def _interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rotary pairs side by side, as ggml's Llama kernels want them (Hugging Face keeps the halves apart)."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
