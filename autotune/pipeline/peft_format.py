"""Adapters on disk as PEFT's ``from_pretrained`` wants them.

PEFT's own ``save_pretrained`` would also write a model card, record this machine's path of the base and, for some
bases, ask the hub about them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from autotune.pipeline.architectures import require_supported, target_modules
from search_spaces.adapter import AdapterParams

ADAPTER_FILE = "adapter_model.safetensors"
#: PEFT's names of a module's matrices are this, the module's own name, and ``.lora_A.weight`` or ``.lora_B.weight``.
PREFIX = "base_model.model."


def lora_config(base: Path, params: AdapterParams) -> Any:
    """PEFT's configuration of an adapter for the model folder ``base``."""
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=params.rank,
        lora_alpha=int(params.alpha) if float(params.alpha).is_integer() else params.alpha,
        lora_dropout=params.dropout,
        target_modules=target_modules(require_supported(base), params.targets),
        use_rslora=params.variant == "rslora",
        use_dora=params.variant == "dora",
    )


def lora_scale(params: AdapterParams) -> float:
    """What PEFT multiplies BA with: alpha / r, or alpha / √r where rank-stabilized."""
    return params.alpha / math.sqrt(params.rank) if params.variant == "rslora" else params.alpha / params.rank


def save_adapter(tensors: Mapping[str, torch.Tensor], base: Path, params: AdapterParams, out: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors; ``tensors`` by PEFT's names, as they are in files."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())},
        out / ADAPTER_FILE,
        metadata={"format": "pt"},
    )
    config = lora_config(base, params)
    config.base_model_name_or_path = base.resolve().name
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(str(out))
