"""Tiny random models of every supported architecture, as real Hugging Face folders (0.2 s to build)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "### Text: the quick brown fox jumps over the lazy dog",
    "### The tone is: joy sadness fear surprise anger joyful",
    "what a lovely morning, I could sing all day long!",
    "nobody came to the station and the train had already left",
    "Is somebody there? The door was locked a minute ago...",
    "wait, you did WHAT with 42 potatoes?",
] * 4

#: name → (config class, extra arguments); two layers, hidden 64, grouped-query attention.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": True}),
    "llama_untied": ("LlamaConfig", {"tie_word_embeddings": False}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", {"tie_word_embeddings": True, "head_dim": 16}),
    "phi3": (
        "Phi3Config",
        {"tie_word_embeddings": False, "max_position_embeddings": 4096,
         "original_max_position_embeddings": 4096, "pad_token_id": 0},
    ),
    "mistral": ("MistralConfig", {"tie_word_embeddings": False, "head_dim": 16, "sliding_window": None}),
    "gemma2": ("Gemma2Config", {"tie_word_embeddings": True, "head_dim": 16, "query_pre_attn_scalar": 16,
                                "sliding_window": 64}),
    "gemma3": ("Gemma3TextConfig", {"tie_word_embeddings": True, "head_dim": 16, "query_pre_attn_scalar": 16,
                                    "sliding_window": 64}),
    "smollm3": ("SmolLM3Config", {"tie_word_embeddings": True, "pad_token_id": 0}),
    "granite": ("GraniteConfig", {"tie_word_embeddings": True, "embedding_multiplier": 6.0,
                                  "logits_scaling": 4.0, "residual_multiplier": 0.3,
                                  "attention_multiplier": 0.25}),
}


@cache
def _tokenizer_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer.to_str()


def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_json()),
        eos_token="<eos>", bos_token="<bos>", pad_token="<pad>", unk_token="<unk>",
    )


def make_model(folder: Path, architecture: str = "llama", seed: int = 0, **overrides: Any) -> Path:
    """Write a random model and its tokenizer to ``folder``; returns the folder."""
    config_class, extra = ARCHITECTURES[architecture]
    tok = tokenizer()
    config = getattr(transformers, config_class)(
        **{
            "vocab_size": len(tok), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
            "bos_token_id": 2, "eos_token_id": 1, **extra, **overrides,
        }
    )
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Norm weights away from their start, so that an export that forgets them is caught.
            scale = 0.1 if "norm" in name else 0.08
            parameter.add_(torch.randn_like(parameter) * scale)
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder
