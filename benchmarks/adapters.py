"""What the benchmarks share: a random adapter of any base, and the whole model with an adapter merged into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autotune.pipeline.architectures import require_supported, tensor_shapes

RANK, ALPHA = 16, 32


def random_adapter(base: Path, out: Path, seed: int = 0) -> Path:
    """Write an adapter (rank 16) of all linear layers in PEFT's format; both its matrices are random."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file

    suffixes = require_supported(base).modules("all-linear")
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in tensor_shapes(base).items():
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] in suffixes:
            prefix = f"base_model.model.{module}"
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(RANK, shape[1], generator=random) / shape[1] ** 0.5
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(shape[0], RANK, generator=random) * 0.01
    out.mkdir(parents=True)
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=sorted(suffixes), task_type="CAUSAL_LM",
                        inference_mode=True, base_model_name_or_path=base.name)
    config.target_modules = sorted(suffixes)  # PEFT makes a set of it, in another order each time
    config.save_pretrained(str(out))
    return out


def merge_whole(base: Path, adapter: Path, out: Path) -> Path:
    """The merged model as a Hugging Face folder, as tools make it: PEFT's ``merge_and_unload`` in fp32, then saved."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from autotune.pipeline.frozen_base import quiet

    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
        merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        merged.save_pretrained(out)
        AutoTokenizer.from_pretrained(base, local_files_only=True).save_pretrained(out)
    return out
