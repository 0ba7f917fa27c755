"""The base model as training holds it: loaded from a folder, frozen, in fp32, bf16, nf4 or int8."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from autotune.errors import TrainingError
from autotune.pipeline.architectures import require_supported
from search_spaces.adapter import BasePrecision

#: CPU features with which bf16 matrix products are faster than fp32 ones (x86, then ARM).
_FAST_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, log lines or progress bars of transformers, PEFT and bitsandbytes in this block."""
    from transformers.utils import logging as hf_logging

    loggers = [logging.getLogger(name) for name in ("bitsandbytes", "peft", "accelerate", "torchao")]
    levels = [logger.level for logger in loggers]
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def resolve_device(device: str = "auto") -> torch.device:
    """``auto`` is the first CUDA device where there is one, else the CPU."""
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def supported_base_precisions(device: str = "auto") -> dict[str, str | None]:
    """Base precision → None where this machine can train with it, else the reason why not."""
    where = resolve_device(device)
    bf16 = None
    if where.type == "cuda":
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            bf16 = "this GPU has no bf16 arithmetic"
    elif not _FAST_BF16 & _cpu_features():
        bf16 = "this CPU has no fast bf16 arithmetic (AVX512-BF16, AMX or ARM BF16); fp32 is faster here"
    bnb = None if find_spec("bitsandbytes") else "the package bitsandbytes is not installed"
    return {"fp32": None, "bf16": bf16, "nf4": bnb, "int8": bnb}


def _cpu_features() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    lines = (line.partition(":") for line in text.splitlines())
    return {f for key, _, value in lines if key.strip() in ("flags", "Features") for f in value.split()}


def require_precision(precision: BasePrecision, device: str = "auto") -> None:
    """Raises TrainingError, with the reason, where this machine cannot train with a base precision."""
    reason = supported_base_precisions(device)[precision]
    if reason is not None:
        raise TrainingError(f"base_precision {precision}: {reason}")


def load_frozen(base: Path, precision: BasePrecision, device: str = "auto") -> Any:
    """A transformers causal LM whose parameters take no gradient.

    Norms, embeddings and the head stay unquantized under nf4 (QLoRA, arXiv 2305.14314) and int8
    (LLM.int8, arXiv 2208.07339). Raises BaseModelError for an unsupported model and TrainingError
    where this machine lacks the precision.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    require_supported(base)
    where = resolve_device(device)
    require_precision(precision, device)
    with quiet():
        config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
        # PyTorch's fused attention cannot bend the attention scores as Gemma 2 does.
        bends = getattr(config, "attn_logit_softcapping", None) is not None
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        quantization: dict[str, Any] = {}
        if precision in ("nf4", "int8"):
            if where.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
                dtype = torch.bfloat16
            quantization = {"quantization_config": _bitsandbytes(precision, dtype)}
        model = AutoModelForCausalLM.from_pretrained(
            base, config=config, dtype=dtype, attn_implementation="eager" if bends else "sdpa",
            local_files_only=True, trust_remote_code=False, use_safetensors=True,
            device_map={"": where}, **quantization,
        )  # fmt: skip
    model.requires_grad_(False)
    for module in model.modules():
        if type(module).__name__ == "Linear8bitLt":
            module.register_forward_pre_hook(_keep_scales)
    return model


def _keep_scales(module: Any, _: object) -> None:
    # PEFT's DoRA puts a copy of the int8 weight in its place at every step; the copy lacks its scales,
    # which bitsandbytes keeps in `module.state` by then and would overwrite with nothing.
    if module.weight.CB is not None and module.weight.SCB is None:
        module.weight.CB = None


def _bitsandbytes(precision: str, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head"])
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["lm_head"],
    )  # fmt: skip
