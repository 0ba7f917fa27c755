"""Stage: a Hugging Face folder and deploy params become an artifact that stock ONNX Runtime GenAI runs."""

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
from autotune.pipeline import builder, graph
from autotune.pipeline.builder import first_line
from autotune.pipeline.embedding import quantize_embedding
from autotune.pipeline.quantize import quantize_matmuls
from search_spaces.deploy import QUANTIZED, DeployParams, unsupported

#: Up to this many positions sliding-window layers get key-value caches of full length: a little more
#: memory, and the artifact runs whatever ``max_length`` its user sets. Beyond it the memory matters
#: more (1 GB at 32,768 positions of a 270M Gemma 3), so the cache is the window and ``max_length``
#: must not be shorter.
_FULL_CACHE_UP_TO = 8192


@dataclass(frozen=True)
class ArtifactInfo:
    """A finished artifact. ``min_generator_length`` is the smallest ``max_length`` a generator may have."""

    path: Path
    size_bytes: int
    seconds: float
    min_generator_length: int


def assemble(
    model_dir: Path, out: Path, params: DeployParams, provider: str, context_length: int | None
) -> ArtifactInfo:
    """Build the artifact for ``params`` from ``model_dir`` in the empty or new folder ``out``.

    ``context_length`` is in tokens, prompt and answer together; None keeps the model's own.

    Raises AssemblyError with one sentence: a point the EP cannot run, a context longer than the
    model's, the builder's complaint, or an artifact that ONNX Runtime GenAI does not load.
    """
    start = time.perf_counter()
    reason = unsupported(params, provider)
    if reason is not None:
        raise AssemblyError(f"{params.label}: {reason}")
    longest = _longest_context(model_dir)
    context = longest if context_length is None else context_length
    if not 1 <= context <= longest:
        raise AssemblyError(
            f"context_length: {context} found; accepted is 1 to {longest}, the positions that the model has"
        )
    shorter = context if context < longest else None

    def save(model: Any, bits_of: Mapping[str, int], folder: Path) -> None:
        _edit(model, bits_of, params, provider, model_dir, shorter)
        graph.save(model, folder)

    builder.build(
        model_dir, out, params, provider, windowed_cache=context > _FULL_CACHE_UP_TO, save=save
    )
    if shorter is not None:
        graph.set_context_length(out, shorter)
    info = ArtifactInfo(
        path=out,
        size_bytes=sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        seconds=time.perf_counter() - start,
        min_generator_length=_min_generator_length(out),
    )
    if _runs_here(provider):
        _check_runs(info)
    return info


def _edit(
    model: Any, bits_of: Mapping[str, int], params: DeployParams, provider: str, model_dir: Path,
    context: int | None,
) -> None:
    """From the builder's float graph to the one that ships."""
    if params.precision in QUANTIZED:
        bits = {"int8": 8, "int4": 4}[params.precision]
        level = params.accuracy_level if provider == "cpu" else 0
        quantize_matmuls(model, params.algorithm, bits, params.block_size, params.symmetric, level, bits_of)
        if params.share_embedding:
            quantize_embedding(model, builder.tied(model_dir))
    if context is not None:
        graph.trim_rope_caches(model, context, _rows_before_long_cache(model_dir, provider))
    if params.precision == "fp16" and provider == "cpu":
        graph.store_as_fp16(model)


def _longest_context(model_dir: Path) -> int:
    return int(_config(model_dir)["max_position_embeddings"])


def _config(model_dir: Path) -> dict[str, Any]:
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


def _min_generator_length(artifact: Path) -> int:
    config = json.loads((artifact / "genai_config.json").read_text(encoding="utf-8"))
    window = config["model"]["decoder"].get("sliding_window")
    return int(window["window_size"]) if window else 1


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
