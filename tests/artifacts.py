"""Real artifacts of tiny random models, built once a test run."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from tests.tiny import make_model

EOS = 1


@cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="autotune-tests-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


@cache
def hf_folder() -> Path:
    """A tiny Llama that does not want to end."""
    return make_model(_root() / "hf", "llama_untied", seed=3)


@cache
def artifact(precision: str = "fp32") -> Path:
    return _build(hf_folder(), _root() / precision, precision)


@cache
def artifact_that_ends_at_once() -> Path:
    """Whatever it is given, the end-of-sequence token has by far the largest logit."""
    folder = make_model(_root() / "hf_eos", "llama_untied", seed=3)
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        # Hidden channel 0 becomes a large constant that no layer writes to, and only EOS's logit reads it.
        model.model.embed_tokens.weight[:, 0] = 50.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0].zero_()
            layer.mlp.down_proj.weight[0].zero_()
        model.model.norm.weight[0] = 1.0
        model.lm_head.weight[:, 0] = 0.0
        model.lm_head.weight[EOS, 0] = 5.0
    model.save_pretrained(folder)
    return _build(folder, _root() / "eos", "fp32")


@cache
def torch_model() -> LlamaForCausalLM:
    model: LlamaForCausalLM = AutoModelForCausalLM.from_pretrained(hf_folder(), dtype=torch.float32).eval()
    return model


def next_logits(ids: list[int]) -> torch.Tensor:
    """PyTorch's logits [vocabulary] of the token after ``ids``."""
    with torch.no_grad():
        return torch_model()(torch.tensor([ids])).logits[0, -1]


def _build(source: Path, out: Path, precision: str) -> Path:
    from onnxruntime_genai.models import builder

    where = (None, str(source), str(out), precision, "cpu", str(_root() / "cache"))
    options: dict[str, object] = {}
    builder.check_extra_options(*where, options)
    builder.create_model(*where, **options)
    return out
