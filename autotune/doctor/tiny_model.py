"""A random model of 0.1 million parameters and rows for it, as real files: what the self-test works on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LABELS = ("joy", "fear", "sadness")
_WORDS = {"joy": ("sun", "cake", "song"), "fear": ("dark", "door", "noise"), "sadness": ("rain", "grave", "alone")}
_ROWS = {"train": 24, "valid": 9, "test": 9}
_SPECIAL = ("<pad>", "<eos>", "<bos>")


def make_model(folder: Path) -> Path:
    """A two-layer Llama in the Hugging Face layout, whose tokenizer knows bytes and no words; returns the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=2, eos_token_id=1, pad_token_id=0,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_rows(folder: Path) -> dict[str, Any]:
    """Rows of every split, and the arguments of ``load_data`` that read them."""
    for split, count in _ROWS.items():
        tones = [LABELS[i % len(LABELS)] for i in range(count)]
        rows = [{"text": f"{' '.join(_WORDS[tone])} {split} {i}", "tone": tone} for i, tone in enumerate(tones)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return {
        "base_dir": folder, **{split: f"{split}.jsonl" for split in _ROWS}, "prompt": "{text}\n", "answer": "{tone}",
        "chat": False, "task": "choice", "labels": LABELS, "max_tokens": 256,
    }


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*_SPECIAL, *letters))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")
