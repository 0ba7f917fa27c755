"""Merge a trained adapter into the unquantized base: what the artifact is exported from."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import transformers

from autotune.errors import AssemblyError
from autotune.pipeline.builder import first_line
from autotune.pipeline.silence import silenced

#: Files beside the weights that the export reads: tokenizer, chat template, generation defaults.
_SIDE_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.jinja",
    "generation_config.json",
)


def merge_adapter(base: Path, adapter: Path | None, out: Path) -> Path:
    """Write ``base`` with ``adapter`` (PEFT's own format, safetensors) merged into it to ``out``.

    Plain LoRA, rsLoRA and DoRA alike: the scale and the magnitudes are in the adapter's own
    configuration and PEFT merges them. Merging is done in fp32 whatever the base is stored in, since
    adding a small update to bf16 weights loses most of it. Without an adapter there is nothing to
    merge and ``base`` itself is returned.

    Raises AssemblyError when the adapter is missing, does not fit the base or holds NaN.
    """
    if adapter is None:
        return base
    if not (adapter / "adapter_model.safetensors").is_file():
        raise AssemblyError(
            f"{adapter}: no adapter_model.safetensors found; accepted is a folder that PEFT saved so"
        )
    out.mkdir(parents=True, exist_ok=True)
    with silenced():
        _merge(base, adapter, out)
    for pattern in _SIDE_FILES:
        for file in base.glob(pattern):
            shutil.copyfile(file, out / file.name)
    return out


def _merge(base: Path, adapter: Path, out: Path) -> None:
    # Here and not above: PEFT imports bitsandbytes, which speaks as it is imported.
    from peft import PeftModel

    model = transformers.AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, low_cpu_mem_usage=True, use_safetensors=True, trust_remote_code=False
    )
    try:
        # safe_merge looks for NaN and infinities before it overwrites the base's weights.
        merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError) as error:
        raise AssemblyError(f"{adapter}: cannot be merged into {base.name}: {first_line(error)}") from error
    merged.save_pretrained(out)
