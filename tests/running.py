"""Build a tiny model's artifact, run both in PyTorch and ONNX Runtime GenAI, and look into the artifact."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime_genai as og
import torch
import transformers

from autotune.pipeline import builder, graph, point, weight_files
from autotune.pipeline.point import ArtifactInfo, make_point
from autotune.pipeline.template import make_template
from autotune.pipeline.template_params import template_params
from search_spaces.deploy import QUANTIZED, DeployParams
from tests import tiny

PROMPT = tuple(range(5, 45))
NEW = 8

_folder = tempfile.TemporaryDirectory(prefix="tiny-models-")


@functools.cache
def model_of(architecture: str, **overrides: object) -> Path:
    """A tiny model's folder, made once in a test run: read it only."""
    return tiny.make_model(Path(tempfile.mkdtemp(dir=_folder.name)), architecture, **overrides)


def build(
    source: Path, out: Path, params: DeployParams, provider: str = "cpu", context: int | None = None
) -> ArtifactInfo:
    """The model's artifact in the new folder ``out``, by way of a template of its own."""
    template, made = out.with_name(f".{out.name}.template"), out.with_name(f".{out.name}.point")
    longest = transformers.AutoConfig.from_pretrained(source).max_position_embeddings
    make_template(source, template, template_params(params, provider, context or longest))
    info = make_point(template, source, made, params, provider, context)
    info.path.rename(out)
    return dataclasses.replace(info, path=out)


def builder_options(params: DeployParams, provider: str = "cpu", *, shared: bool = False) -> dict[str, Any]:
    """ModelBuilder's own options for one deploy point, quantization included."""
    options: dict[str, Any] = {"prune_lm_head": params.prune_head}
    if params.precision not in QUANTIZED:
        return options
    options |= {"block_size": params.block_size, "is_symmetric": params.symmetric, "algo_config": params.algorithm,
                "accuracy_level": params.accuracy_level if provider == "cpu" else 0,
                "shared_embeddings": shared, "op_types_to_quantize": ("MatMul",)}
    if params.int8_where != "none":
        place = {"head": "last_matmul", "mixed_layers": "mixed_layers"}[params.int8_where]
        options["matmul_mixed_precision"] = {place: "int8"}
    return options


def full_build(source: Path, out: Path, params: DeployParams, context: int, provider: str = "cpu") -> Path:
    """What a build without templates gives: ModelBuilder run on ``source`` at the very precision, then our edits."""
    def save(model: Any, folder: Path) -> None:
        point._edit(model, params, provider, source, context)
        weight_files.save(model, folder, lambda name: None)

    precision = "fp32" if params.precision == "fp16" and provider == "cpu" else params.precision
    options = {**builder_options(params, provider), "windowed_kv_cache": False}
    builder.build(source, out, precision, provider, options, save=save)
    graph.set_context_length(out, context)
    return out


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
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    found = {}
    for tensor in model.graph.initializer:  # by hand: onnx refuses files that are hard links
        if tensor.external_data:
            where = {entry.key: entry.value for entry in tensor.external_data}
            with (folder / where["location"]).open("rb") as file:
                file.seek(int(where.get("offset", 0)))
                tensor.raw_data = file.read(int(where["length"]))
            tensor.ClearField("external_data")
            tensor.data_location = onnx.TensorProto.DEFAULT
        found[tensor.name] = onnx.numpy_helper.to_array(tensor)
    return found


def graph_of(artifact: Path) -> onnx.ModelProto:
    """The graph without its initializers."""
    model = onnx.load(artifact / "model.onnx", load_external_data=False)
    del model.graph.initializer[:]
    # A node's value infos are kept by name, their order means nothing.
    infos = sorted(model.graph.value_info, key=lambda info: info.name)
    del model.graph.value_info[:]
    model.graph.value_info.extend(infos)
    return model


def operators(folder: Path) -> set[str]:
    return {n.op_type for n in onnx.load(folder / "model.onnx", load_external_data=False).graph.node}
