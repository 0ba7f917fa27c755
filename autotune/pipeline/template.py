"""The template of a base model on an execution provider: ModelBuilder's graph, run once for all precisions.

It holds what no adapter changes (embedding, head, norms, RoPE caches) and, for each layer matrix,
where the base model keeps it. Artifacts of every deploy point are made from it and the base.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from autotune.pipeline import builder, graph, layer_weights, weight_files
from autotune.pipeline.architectures import tensor_shapes
from autotune.pipeline.encode import FLOATS
from autotune.pipeline.layer_weights import LayerWeight
from autotune.pipeline.merge import MergedWeights
from autotune.pipeline.template_params import TemplateParams

SOURCES_FILE = "sources.json"
GRAPH_FOLDER = "graph"

def make_template(model_dir: Path, out: Path, params: TemplateParams) -> None:
    """Run ModelBuilder on ``model_dir`` and write the template to the folder ``out``.

    Every layer matrix of the graph is compared with the one that the base model is said to keep it
    in; one that differs in a single bit counts as not changeable and is stored. Raises AssemblyError
    with the builder's complaint.
    """
    folder = out / GRAPH_FOLDER
    folder.mkdir(parents=True)
    sources: list[LayerWeight] = []

    def save(model: Any, where: Path) -> None:
        sources.extend(_changeable(model, model_dir, params.floats))
        for weight in sources:
            weight_files.leave_out(model.graph.initializers[weight.name])
        weight_files.save(model, where, lambda name: None)

    options = {"prune_lm_head": params.prune_head, "windowed_kv_cache": params.windowed_cache}
    builder.build(model_dir, folder, params.floats, params.provider, options, save=save)
    text = json.dumps({"floats": params.floats, "weights": [weight.as_json() for weight in sources]})
    (out / SOURCES_FILE).write_text(text, encoding="utf-8")


def load_template(template: Path, weights: MergedWeights) -> tuple[Any, list[LayerWeight]]:
    """The float graph with all its weights, layer matrices taken from ``weights`` when they are asked for."""
    raw = json.loads((template / SOURCES_FILE).read_text(encoding="utf-8"))
    sources = [layer_weights.from_json(entry) for entry in raw["weights"]]
    model = graph.load(template / GRAPH_FOLDER)
    for weight in sources:
        value = model.graph.initializers[weight.name]
        tensor = value.const_value
        value.const_value = ir.LazyTensor(
            _reader(weights, weight, raw["floats"]), dtype=tensor.dtype, shape=tensor.shape, name=weight.name
        )
    return model, sources


def matrix(weights: MergedWeights, weight: LayerWeight, floats: str) -> np.ndarray[Any, Any]:
    """``weight`` [out, in] in the graph's float type."""
    import torch

    found = weights.matrix(weight)
    if floats == "bf16":  # numpy has no such type of its own
        return found.to(torch.bfloat16).view(torch.uint16).numpy().view(FLOATS["bf16"])
    return found.to(torch.float16 if floats == "fp16" else torch.float32).numpy()


def _reader(weights: MergedWeights, weight: LayerWeight, floats: str) -> Any:
    return lambda: ir.Tensor(matrix(weights, weight, floats).T, name=weight.name)


def _changeable(model: Any, model_dir: Path, floats: str) -> Sequence[LayerWeight]:
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    shapes = {name: tuple(int(size) for size in tensor.shape) for name, tensor in tensors.items()}
    with MergedWeights(model_dir, None) as base:
        return [
            weight for weight in layer_weights.find(shapes, tensor_shapes(model_dir))
            if np.array_equal(_bits(matrix(base, weight, floats)), _bits(tensors[weight.name].numpy().T))
        ]


def _bits(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.view(np.uint32 if array.itemsize == 4 else np.uint16)

