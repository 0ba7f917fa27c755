"""One run of ONNX Runtime GenAI's ModelBuilder: DeployParams in, the builder's own files out."""

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
from search_spaces.deploy import QUANTIZED, DeployParams

_QUANTIZER_LOG = "onnxruntime.quantization.matmul_nbits_quantizer"


#: Takes the builder's float graph, the bits of the nodes that have others than the rest, and the folder.
Save = Callable[[Any, Mapping[str, int], Path], None]


def build(
    model_dir: Path, out: Path, params: DeployParams, provider: str, *,
    windowed_cache: bool = True, save: Save | None = None,
) -> None:
    """Export the Hugging Face folder ``model_dir`` to ``out``: model.onnx, its data, config and tokenizer.

    With ``save`` the builder hands over its graph before it would quantize and write it, weights still
    in float (fp32 on the CPU EP, whatever the precision); without, it does both itself.
    ``windowed_cache`` gives sliding-window layers a key-value cache of the window's length only; such
    a model refuses a generator whose ``max_length`` is shorter than the window.

    Raises AssemblyError with the builder's own complaint.
    """
    options = builder_options(params, provider)
    options["windowed_kv_cache"] = windowed_cache
    precision = builder_precision(params, provider)
    source = str(model_dir)
    with tempfile.TemporaryDirectory() as cache, _quiet():
        module = importlib.import_module("onnxruntime_genai.models.builder")
        with _tokenizer_loaded_once(module), _saving_with(save):
            try:
                module.check_extra_options(source, source, str(out), precision, provider, cache, options)
                _flatten_rope(options["hf_details"]["hf_config"])
                module.create_model(source, source, str(out), precision, provider, cache, **options)
            except MemoryError:
                raise
            except Exception as error:  # the builder raises bare Exception in places
                reason = first_line(error)
                raise AssemblyError(f"ModelBuilder cannot make {params.label}: {reason}") from error


def builder_precision(params: DeployParams, provider: str) -> str:
    """The precision the builder is asked for: its fp16 graph does not run on the CPU EP."""
    return "fp32" if params.precision == "fp16" and provider == "cpu" else params.precision


def builder_options(params: DeployParams, provider: str) -> dict[str, Any]:
    """The builder's ``extra_options`` for one deploy point."""
    options: dict[str, Any] = {"prune_lm_head": params.prune_head, "hf_token": "false", "hf_remote": False}
    if params.precision not in QUANTIZED:
        return options
    options["block_size"] = params.block_size
    options["is_symmetric"] = params.symmetric
    options["algo_config"] = params.algorithm
    options["accuracy_level"] = params.accuracy_level if provider == "cpu" else 0
    if params.int8_where != "none":
        place = {"head": "last_matmul", "mixed_layers": "mixed_layers"}[params.int8_where]
        options["matmul_mixed_precision"] = {place: "int8"}
    # The builder shares a tied embedding at symmetric int4 alone; for the rest it leaves it in float, or
    # refers to names that its quantizer does not write. It is quantized after, alike for all.
    options["shared_embeddings"] = False
    options["op_types_to_quantize"] = ("MatMul",)
    return options


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
        bits_of = {name: int(entry["bits"]) for name, entry in self.int4_customized_weight_config.items()}
        save(self.model, bits_of, Path(out_dir))

    model_class.save_model = save_model
    try:
        yield
    finally:
        model_class.save_model = original


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type when it has none."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
