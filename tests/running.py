"""Run a tiny model in PyTorch and its artifact in ONNX Runtime GenAI, and look into the artifact."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime_genai as og
import torch
import transformers

from tests import tiny

PROMPT = tuple(range(5, 45))
NEW = 8

_folder = tempfile.TemporaryDirectory(prefix="tiny-models-")


@functools.cache
def model_of(architecture: str, **overrides: object) -> Path:
    """A tiny model's folder, made once in a test run: read it only."""
    return tiny.make_model(Path(tempfile.mkdtemp(dir=_folder.name)), architecture, **overrides)


def torch_logits(folder: Path, ids=PROMPT) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].numpy()


def torch_answer(folder: Path, ids=PROMPT, new=NEW) -> list[int]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    out = model.generate(torch.tensor([ids]), max_new_tokens=new, do_sample=False, pad_token_id=0)
    return out[0, len(ids):].tolist()


def generator_for(folder: Path, ids=PROMPT, max_length: int | None = None) -> og.Generator:
    model = og.Model(str(folder))
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=max_length or len(ids) + NEW, do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens(np.array([ids], np.int32))
    return generator


def logits(folder: Path, ids=PROMPT, max_length: int | None = None) -> np.ndarray:
    return np.array(generator_for(folder, ids, max_length).get_logits())[0, -1]


def answer(folder: Path, ids=PROMPT, new=NEW, max_length: int | None = None) -> list[int]:
    generator = generator_for(folder, ids, max_length or len(ids) + new)
    tokens = []
    for _ in range(new):
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
        if generator.is_done():
            break
    return tokens


def data_of(folder: Path) -> dict[str, np.ndarray]:
    model = onnx.load(folder / "model.onnx")
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def operators(folder: Path) -> set[str]:
    return {n.op_type for n in onnx.load(folder / "model.onnx", load_external_data=False).graph.node}
