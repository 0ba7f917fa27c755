"""Adapters as PEFT saves them, away from their zero start, and PEFT's own merge of them."""

from __future__ import annotations

from pathlib import Path

import peft
import torch
import transformers

VARIANTS = {"lora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}


def load(folder: Path, dtype=torch.float32):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def make_adapter(base: Path, folder: Path, targets=("q_proj", "v_proj", "down_proj"), **options):
    """Write a random adapter to ``folder``; returns the PyTorch model with it applied."""
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=list(targets), task_type="CAUSAL_LM", **options)
    model = peft.get_peft_model(load(base), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return model


def merge_with_peft(base: Path, adapter: Path, out: Path) -> Path:
    """The whole merged model as a Hugging Face folder."""
    merged = peft.PeftModel.from_pretrained(load(base), str(adapter)).merge_and_unload(safe_merge=True)
    merged.save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(out)
    return out
