"""Opens an artifact in ONNX Runtime GenAI: the only file that knows how that is configured."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def _genai() -> Any:
    """onnxruntime_genai, loaded on first use.

    Both it and onnxruntime otherwise start upload threads that report to their maker and run beside what
    is timed. The variable has to be set before they are loaded; their own switch leaves the threads running.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime_genai

    return onnxruntime_genai


def open_model(artifact: Path, provider: str, provider_options: Mapping[str, str], threads: int) -> Any:
    """The artifact as an ``onnxruntime_genai.Model`` on ``provider`` with ``threads`` intra-op threads.

    Where the artifact's configuration already names the provider, its options there are kept and
    ``provider_options`` are laid over them. Raises ValueError for options on the CPU provider, and
    RuntimeError (from the library) when the artifact or the provider cannot be opened.
    """
    config = _genai().Config(str(artifact))
    session_options = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": session_options}}}))
    _choose_provider(config, artifact, provider, provider_options)
    return _genai().Model(config)


def _choose_provider(config: Any, artifact: Path, provider: str, options: Mapping[str, str]) -> None:
    if provider == "cpu":
        if options:
            raise ValueError(f"provider 'cpu' takes no options, found {sorted(options)}")
        config.clear_providers()
        return
    if configured_providers(artifact) != [provider.lower()]:
        config.clear_providers()
        config.append_provider(provider)
    for name, value in options.items():
        config.set_provider_option(provider, name, str(value))


def configured_providers(artifact: Path) -> list[str]:
    """The execution providers that the artifact's own configuration asks for, lower case, in order."""
    config = json.loads((artifact / "genai_config.json").read_text(encoding="utf-8"))
    entries = config["model"].get("decoder", {}).get("session_options", {}).get("provider_options", [])
    return [name.lower() for entry in entries for name in entry]


def new_generator(model: Any, max_length: int, *, ignore_eos: bool = False) -> Any:
    """A greedy generator for one sequence of at most ``max_length`` tokens, prompt included.

    ``ignore_eos`` keeps the end-of-sequence logits masked for the whole of that length, which leaves the
    library's own generation loop in place.
    """
    og = _genai()
    params = og.GeneratorParams(model)
    options: dict[str, Any] = {"max_length": max_length, "do_sample": False, "batch_size": 1}
    if ignore_eos:
        options["min_length"] = max_length
    params.set_search_options(**options)
    return og.Generator(model, params)


def min_generator_length(artifact: Path) -> int:
    """The smallest ``max_length`` that a generator of the artifact may have: that of its attention window."""
    config = json.loads((artifact / "genai_config.json").read_text(encoding="utf-8"))
    window = config["model"]["decoder"].get("sliding_window")
    return int(window["window_size"]) if window else 1


def context_length(artifact: Path) -> int:
    """The most tokens, prompt and answer together, that the artifact was made for."""
    config = json.loads((artifact / "genai_config.json").read_text(encoding="utf-8"))
    return int(config["model"]["context_length"])


def tokenizer(model: Any) -> Any:
    """Of an open model, or of an artifact's folder given as text."""
    return _genai().Tokenizer(model)


def ids_array(ids: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.asarray(ids, dtype=np.int32)


def genai_version() -> str:
    return str(_genai().__version__)
