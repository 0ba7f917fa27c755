"""The artifact of the base model at a deploy point: what is probed before any training, and what the
artifacts of adapters share all but their layer matrices with."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og

from autotune.errors import AssemblyError
from autotune.pipeline import builder, graph, layer_weights, weight_files
from autotune.pipeline import encode as encoding_of
from autotune.pipeline.builder import first_line
from autotune.pipeline.embedding import float_embedding_apart, quantize_embedding
from autotune.pipeline.encode import Encoding
from autotune.pipeline.layer_weights import LayerWeight
from autotune.pipeline.merge import MergedWeights
from autotune.pipeline.template import GRAPH_FOLDER, SOURCES_FILE, load_template
from autotune.pipeline.weight_files import Place
from autotune.pipeline.weight_storage import Stored, quantize_matmuls, store_as_fp16
from objectives.session import min_generator_length
from objectives.size import size_bytes
from search_spaces.deploy import QUANTIZED, DeployParams, unsupported

ARTIFACT_FOLDER = "artifact"
LAYOUT_FILE = "layout.json"

_BITS = {"int8": 8, "int4": 4}


@dataclass(frozen=True)
class ArtifactInfo:
    """A finished artifact. ``min_generator_length`` is the smallest ``max_length`` a generator may have."""

    path: Path
    size_bytes: int
    seconds: float
    min_generator_length: int


@dataclass(frozen=True)
class ChangedWeight:
    """A layer matrix as an artifact holds it: ``places`` of the arrays that its encoding gives, in order."""

    weight: LayerWeight
    encoding: Encoding
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Layout:
    """Where the layer matrices of a point's artifacts lie. ``floats`` is the graph's float type."""

    floats: str
    weights: tuple[ChangedWeight, ...]


def make_point(
    template: Path, base: Path, out: Path, params: DeployParams, provider: str, context_length: int | None
) -> ArtifactInfo:
    """Write the base model's artifact at ``params``, and the layout of what adapters change, to ``out``.

    ``template`` is one that ``template_params`` names for the point. ``context_length`` is in tokens,
    prompt and answer together; None keeps the model's own.

    Raises AssemblyError with one sentence: a point the EP cannot run, a context longer than the
    model's, or an artifact that ONNX Runtime GenAI does not load.
    """
    start = time.perf_counter()
    reason = unsupported(params, provider)
    if reason is not None:
        raise AssemblyError(f"{params.label}: {reason}")
    context = _shorter_context(base, context_length)
    folder = out / ARTIFACT_FOLDER
    folder.mkdir(parents=True)
    with MergedWeights(base, None) as weights:
        model, sources = load_template(template, weights)
        stored = _edit(model, params, provider, base, context)
        files = {name: weight_files.group_file(w.group) for w in sources for name in _names(stored, w)}
        places = weight_files.save(model, folder, files.get)
    for file in (template / GRAPH_FOLDER).iterdir():
        if not (folder / file.name).exists() and file.suffix != ".data":
            weight_files.link(file, folder / file.name)
    if context is not None:
        graph.set_context_length(folder, context)
    floats = json.loads((template / SOURCES_FILE).read_text(encoding="utf-8"))["floats"]
    changed = [ChangedWeight(w, _encoding(stored, w), tuple(places[n] for n in _names(stored, w))) for w in sources]
    _write_layout(out / LAYOUT_FILE, Layout(floats, tuple(changed)))
    info = describe(folder, start)
    if _runs_here(provider):
        _check_runs(info)
    return info


def describe(folder: Path, start: float) -> ArtifactInfo:
    """``start`` is the ``perf_counter`` at which making the artifact began."""
    return ArtifactInfo(
        path=folder,
        size_bytes=size_bytes(folder),
        seconds=time.perf_counter() - start,
        min_generator_length=min_generator_length(folder),
    )


def read_layout(point: Path) -> Layout:
    raw = json.loads((point / LAYOUT_FILE).read_text(encoding="utf-8"))
    return Layout(raw["floats"], tuple(
        ChangedWeight(layer_weights.from_json(entry["weight"]), encoding_of.from_json(entry["encoding"]),
                      tuple(Place(*place) for place in entry["places"]))
        for entry in raw["weights"]
    ))


def bits_of(params: DeployParams, layers: int) -> dict[str, int]:
    """The nodes with other bits than the rest, as ModelBuilder chooses them.

    ``mixed_layers`` is llama.cpp's choice: value and down projections of the first and last eighth of the
    layers and of every third one between.
    """
    if params.int8_where == "head":
        return {"/lm_head/MatMul": 8}
    if params.int8_where == "none":
        return {}
    chosen = [i for i in range(layers)
              if i < layers / 8 or i >= 7 * layers / 8 or (i - round(layers / 8)) % 3 == 2]
    places = ("attn/qkv_proj", "attn/v_proj", "mlp/down_proj")
    return {f"/model/layers.{i}/{place}/MatMul": 8 for i in chosen for place in places}


def _edit(model: Any, params: DeployParams, provider: str, base: Path, context: int | None) -> Stored:
    """From the builder's float graph to the one that ships."""
    stored: Stored = {}
    graph.remove_unused(model, *list(model.graph.initializers.values()))  # such as caches for layers it has none of
    if params.precision in QUANTIZED:
        level = params.accuracy_level if provider == "cpu" else 0
        encoding = Encoding("nbits", _BITS[params.precision], params.block_size, params.symmetric, params.algorithm)
        if not params.share_embedding:
            float_embedding_apart(model)
        layers = int(_config(base)["num_hidden_layers"])
        stored = quantize_matmuls(model, encoding, level, bits_of(params, layers))
        if params.share_embedding:
            quantize_embedding(model, builder.tied(base))
    if context is not None:
        graph.trim_rope_caches(model, context, _rows_before_long_cache(base, provider))
    if params.precision == "fp16" and provider == "cpu":
        stored = store_as_fp16(model)
    return stored


def _encoding(stored: Stored, weight: LayerWeight) -> Encoding:
    return stored[weight.name][0] if weight.name in stored else Encoding("float")


def _names(stored: Stored, weight: LayerWeight) -> tuple[str, ...]:
    return stored[weight.name][1] if weight.name in stored else (weight.name,)


def _write_layout(path: Path, layout: Layout) -> None:
    weights = [
        {"weight": c.weight.as_json(), "encoding": c.encoding.as_json(),
         "places": [[p.file, p.offset, p.length] for p in c.places]}
        for c in layout.weights
    ]
    path.write_text(json.dumps({"floats": layout.floats, "weights": weights}), encoding="utf-8")


def _shorter_context(base: Path, asked: int | None) -> int | None:
    longest = int(_config(base)["max_position_embeddings"])
    if asked is not None and not 1 <= asked <= longest:
        raise AssemblyError(
            f"context_length: {asked} found; accepted is 1 to {longest}, the positions that the model has"
        )
    return None if asked == longest else asked


def _config(model_dir: Path) -> Mapping[str, Any]:
    import transformers

    config = transformers.AutoConfig.from_pretrained(model_dir, trust_remote_code=False)
    values: dict[str, Any] = config.to_dict()
    return values


def _rows_before_long_cache(model_dir: Path, provider: str) -> int | None:
    """Where the long LongRoPE cache begins on EPs without If, which read both from one tensor."""
    config = _config(model_dir)
    original = config.get("original_max_position_embeddings")
    if provider != "dml" or not original or original == config["max_position_embeddings"]:
        return None
    return int(original)


def _runs_here(provider: str) -> bool:
    if provider == "cuda":
        return bool(og.is_cuda_available())
    if provider == "dml":
        return bool(og.is_dml_available())
    return True


def _check_runs(info: ArtifactInfo) -> None:
    """Load the artifact and answer one token."""
    try:
        model = og.Model(str(info.path))
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=max(info.min_generator_length, 4), do_sample=False)
        generator = og.Generator(model, params)
        generator.append_tokens(np.array([[0]], np.int32))
        logits = generator.get_logits()
    except Exception as error:
        reason = first_line(error)
        raise AssemblyError(f"{info.path.name}: ONNX Runtime GenAI cannot run it: {reason}") from error
    if not np.isfinite(logits).all():
        raise AssemblyError(f"{info.path.name}: the artifact's logits are not finite")
