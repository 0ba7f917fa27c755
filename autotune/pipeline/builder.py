"""One run of ONNX Runtime GenAI's ModelBuilder, kept quiet, and stopped before it writes where that is asked for."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from autotune.errors import AssemblyError

_QUANTIZER_LOG = "onnxruntime.quantization.matmul_nbits_quantizer"


#: Takes the builder's graph, its weights still in float, and the folder that it would write into.
Save = Callable[[Any, Path], None]


def build(
    model_dir: Path, out: Path, precision: str, provider: str, options: Mapping[str, Any], *,
    save: Save | None = None,
) -> None:
    """Export the Hugging Face folder ``model_dir`` to ``out``: model.onnx, its data, config and tokenizer.

    ``precision`` and ``options`` (its ``extra_options``) are the builder's own. With ``save`` it hands
    over its graph before it would quantize and write it; without, it does both itself.

    Raises AssemblyError with the builder's own complaint.
    """
    extra = {"hf_token": "false", "hf_remote": False, **options}
    source = str(model_dir)
    with tempfile.TemporaryDirectory() as cache, _quiet():
        module = importlib.import_module("onnxruntime_genai.models.builder")
        with _tokenizer_loaded_once(module), _saving_with(save):
            try:
                module.check_extra_options(source, source, str(out), precision, provider, cache, extra)
                _flatten_rope(extra["hf_details"]["hf_config"])
                module.create_model(source, source, str(out), precision, provider, cache, **extra)
            except MemoryError:
                raise
            except Exception as error:  # the builder raises bare Exception in places
                reason = first_line(error)
                raise AssemblyError(f"ModelBuilder cannot export {model_dir.name} at {precision}: {reason}") from error


def tied(model_dir: Path) -> bool:
    """Whether input and output embeddings are one matrix."""
    return bool(getattr(_config(model_dir), "tie_word_embeddings", False))


def _config(model_dir: Path) -> Any:
    import transformers

    return transformers.AutoConfig.from_pretrained(model_dir, trust_remote_code=False)


def _flatten_rope(config: Any) -> None:
    """Give the builder Gemma 3's RoPE parameters flat, as it reads them.

    transformers 5 nests them per layer type; the builder looks for the global ones at the top and for
    the sliding layers' base in ``rope_local_base_freq``.
    """
    nested = getattr(config, "rope_parameters", None)
    if not isinstance(nested, dict) or "full_attention" not in nested:
        return
    full = dict(nested["full_attention"])
    local = nested.get("sliding_attention") or full
    if local.get("rope_type", "default") != "default":
        raise AssemblyError(
            f"the sliding-window layers use {local['rope_type']} RoPE; ModelBuilder exports 'default' only"
        )
    config.rope_parameters = full
    config.rope_theta = full["rope_theta"]
    config.rope_local_base_freq = local["rope_theta"]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the builder's prints, bars, warnings and log handlers away from ours."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    quantizer = logging.getLogger(_QUANTIZER_LOG)
    with Path(os.devnull).open("w") as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantizer.setLevel(logging.CRITICAL)
        try:
            with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
                yield
        finally:
            # Importing the quantizer configures the root logger, which would then write to our stderr.
            root.handlers[:] = handlers
            root.setLevel(level)


@contextlib.contextmanager
def _tokenizer_loaded_once(module: Any) -> Iterator[None]:
    """Let the builder read the tokenizer once instead of three times: 3 s each with 262,144 tokens."""
    base: Any = importlib.import_module("builders.base")
    original = module.AutoTokenizer

    class Once:
        loaded: Any = None

        @classmethod
        def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
            if cls.loaded is None:
                cls.loaded = original.from_pretrained(*args, **kwargs)
            return cls.loaded

    places: list[Any] = [p for p in (module, base) if getattr(p, "AutoTokenizer", None) is original]
    for place in places:
        place.AutoTokenizer = Once
    try:
        yield
    finally:
        for place in places:
            place.AutoTokenizer = original


@contextlib.contextmanager
def _saving_with(save: Save | None) -> Iterator[None]:
    """Let ``save`` take the place of the builder's quantizing and writing.

    This is the one method of the builder that is replaced. Its own copies every weight through
    protobuf messages, twice, which takes half of the time of a build.
    """
    if save is None:
        yield
        return
    model_class = importlib.import_module("builders.base").Model
    original = model_class.save_model

    def save_model(self: Any, out_dir: str) -> None:
        save(self.model, Path(out_dir))

    model_class.save_model = save_model
    try:
        yield
    finally:
        model_class.save_model = original


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type when it has none."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
