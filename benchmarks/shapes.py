"""Random models of real models' shapes, written a shard at a time, so that making one needs little memory.

Speed, memory and bytes depend on shapes and types alone, so no weights need to be had for them. The values are random,
and so are the answers. The tokenizer is the tests' tiny one; the vocabulary of the model is the real one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Shape = tuple[int, ...]
_SHARD_BYTES = 1 << 30
_BF16_BYTES = 2


@dataclass(frozen=True)
class ModelShape:
    """``config`` are the arguments of the transformers class; ``fused`` whether q, k, v and gate, up are one matrix;
    ``bias`` whether q, k, v have one.
    """

    config_class: str
    config: dict[str, Any]
    fused: bool
    bias: bool = False

    def config_with(self, layers: int | None) -> dict[str, Any]:
        return self.config | ({"num_hidden_layers": layers} if layers else {})


#: From the configurations that are published with the weights: SmolLM2-135M, Qwen2.5-0.5B, Llama-3.2-1B, Phi-3-mini.
SHAPES: dict[str, ModelShape] = {
    "llama-135m": ModelShape("LlamaConfig", {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5, "bos_token_id": 2, "eos_token_id": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    }, fused=False),
    "qwen-0.5b": ModelShape("Qwen2Config", {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768, "tie_word_embeddings": True,
        "rms_norm_eps": 1e-6, "bos_token_id": 2, "eos_token_id": 1, "use_sliding_window": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    }, fused=False, bias=True),
    "llama-3.2-1b": ModelShape("LlamaConfig", {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "max_position_embeddings": 131072,
        "tie_word_embeddings": True, "rms_norm_eps": 1e-5, "bos_token_id": 2, "eos_token_id": 1,
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
                            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    }, fused=False),
    "phi-3-mini": ModelShape("Phi3Config", {
        "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 32064, "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096, "sliding_window": 2047, "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    }, fused=True),
}


def tensors(shape: ModelShape, layers: int | None = None) -> Iterator[tuple[str, Shape]]:
    """Name and shape of each tensor, as the checkpoint has them."""
    config = shape.config_with(layers)
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    query, key = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    yield "model.embed_tokens.weight", (vocab, hidden)
    for i in range(config["num_hidden_layers"]):
        place = f"model.layers.{i}."
        if shape.fused:
            yield f"{place}self_attn.qkv_proj.weight", (query + 2 * key, hidden)
            yield f"{place}mlp.gate_up_proj.weight", (2 * inner, hidden)
        else:
            yield f"{place}self_attn.q_proj.weight", (query, hidden)
            yield f"{place}self_attn.k_proj.weight", (key, hidden)
            yield f"{place}self_attn.v_proj.weight", (key, hidden)
            if shape.bias:
                yield f"{place}self_attn.q_proj.bias", (query,)
                yield f"{place}self_attn.k_proj.bias", (key,)
                yield f"{place}self_attn.v_proj.bias", (key,)
            yield f"{place}mlp.gate_proj.weight", (inner, hidden)
            yield f"{place}mlp.up_proj.weight", (inner, hidden)
        yield f"{place}self_attn.o_proj.weight", (hidden, query)
        yield f"{place}mlp.down_proj.weight", (hidden, inner)
        yield f"{place}input_layernorm.weight", (hidden,)
        yield f"{place}post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocab, hidden)


def write_model(shape: ModelShape, layers: int | None, out: Path) -> Path:
    """A Hugging Face folder of the shape in bf16, in shards of about 1 GiB."""
    import transformers

    from tests import tiny

    out.mkdir(parents=True)
    config = getattr(transformers, shape.config_class)(**shape.config_with(layers), dtype="bfloat16")
    config.architectures = [shape.config_class.replace("Config", "ForCausalLM")]
    config.save_pretrained(out)
    tiny.tokenizer().save_pretrained(out)
    _write_weights(list(tensors(shape, layers)), out)
    return out


def _write_weights(wanted: list[tuple[str, Shape]], out: Path) -> None:
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(0)
    shards = _shards(wanted)
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        made = {}
        for tensor, shape in shard:
            middle, spread = (1.0, 0.1) if len(shape) == 1 else (0.0, 0.02)
            made[tensor] = torch.empty(shape, dtype=torch.bfloat16).normal_(middle, spread, generator=random)
            where[tensor] = name
        save_file(made, out / name, metadata={"format": "pt"})
    total = sum(_bytes(shape) for _, shape in wanted)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


def _shards(wanted: list[tuple[str, Shape]]) -> list[list[tuple[str, Shape]]]:
    shards: list[list[tuple[str, Shape]]] = [[]]
    filled = 0
    for tensor in wanted:
        if shards[-1] and filled + _bytes(tensor[1]) > _SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += _bytes(tensor[1])
    return shards


def _bytes(shape: Shape) -> int:
    count = _BF16_BYTES
    for size in shape:
        count *= size
    return count
