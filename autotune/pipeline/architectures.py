"""The model families autotune knows, and what their folders say without loading a weight.

Everything here reads ``config.json`` and safetensors headers alone; torch is not imported.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.errors import BaseModelError, Problem
from search_spaces.adapter import TARGET_GROUPS, TargetGroup

_SPLIT_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_SPLIT_MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Architecture:
    """One model family.

    ``name`` is the class that ``config.json`` names; the tuples are module suffixes as LoRA targets.
    ``tied_by_default`` and ``sliding_window_by_default`` hold where ``config.json`` leaves the key out.
    """

    name: str
    family: str
    model_type: str
    attention: tuple[str, ...] = _SPLIT_ATTENTION
    query_value: tuple[str, ...] = ("q_proj", "v_proj")
    mlp: tuple[str, ...] = _SPLIT_MLP
    tied_by_default: bool = False
    sliding_window_by_default: int | None = None

    def modules(self, group: TargetGroup) -> tuple[str, ...]:
        """Module suffixes of a target group.

        Where query, key and value are one matrix (Phi-3), ``qv`` adapts that whole matrix, as LoRA
        cannot reach into a part of it.
        """
        groups: dict[str, tuple[str, ...]] = {
            "attention": self.attention,
            "mlp": self.mlp,
            "all-linear": self.attention + self.mlp,
            "qv": self.query_value,
        }
        if group not in groups:
            raise ValueError(f"targets: found {group!r}, accepted: {', '.join(TARGET_GROUPS)}")
        return groups[group]


_KNOWN = (
    Architecture("LlamaForCausalLM", "Llama", "llama"),
    Architecture("Qwen2ForCausalLM", "Qwen2/2.5", "qwen2", sliding_window_by_default=4096),
    Architecture("Qwen3ForCausalLM", "Qwen3", "qwen3", sliding_window_by_default=4096),
    Architecture(
        "Phi3ForCausalLM", "Phi-3", "phi3",
        attention=("qkv_proj", "o_proj"), query_value=("qkv_proj",), mlp=("gate_up_proj", "down_proj"),
    ),
    Architecture("MistralForCausalLM", "Mistral", "mistral", sliding_window_by_default=4096),
    Architecture(
        "Gemma2ForCausalLM", "Gemma 2", "gemma2", tied_by_default=True, sliding_window_by_default=4096
    ),
    Architecture(
        "Gemma3ForCausalLM", "Gemma 3 (text)", "gemma3_text",
        tied_by_default=True, sliding_window_by_default=4096,
    ),
    Architecture("SmolLM3ForCausalLM", "SmolLM3", "smollm3", tied_by_default=True),
    Architecture("GraniteForCausalLM", "Granite", "granite"),
)  # fmt: skip

#: class name in ``config.json`` → family
ARCHITECTURES: dict[str, Architecture] = {a.name: a for a in _KNOWN}
_BY_MODEL_TYPE: dict[str, Architecture] = {a.model_type: a for a in _KNOWN}


@dataclass(frozen=True)
class ModelFacts:
    """What estimates need to know of a base model.

    ``parameters`` counts a tied embedding once; ``embedding_parameters`` is the input embedding's part
    of it. ``context_length`` and ``sliding_window`` are in tokens; ``sliding_window`` is None where
    every layer sees everything.
    """

    architecture: str
    parameters: int
    embedding_parameters: int
    layers: int
    hidden: int
    vocab: int
    tied: bool
    context_length: int
    sliding_window: int | None


def _problem(path: Path, where: str, found: str, accepted: str) -> BaseModelError:
    return BaseModelError([Problem(str(path), where, found, accepted)])


def read_config(model_dir: Path) -> dict[str, Any]:
    """``config.json`` of a Hugging Face folder. Raises BaseModelError when it is absent or no JSON object."""
    path = model_dir / "config.json"
    accepted = "a Hugging Face model folder with a config.json"
    if not path.is_file():
        raise _problem(path, "", "no such file", accepted)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _problem(path, "", f"not JSON ({error})", accepted) from None
    if not isinstance(config, dict):
        raise _problem(path, "", f"a JSON {type(config).__name__}", "a JSON object")
    return config


def require_supported(model_dir: Path) -> Architecture:
    """The family of a model folder.

    Raises BaseModelError, with what was found and the families accepted, for any other model and for
    a checkpoint that is already quantized (its weights cannot take a merged adapter).
    """
    path = model_dir / "config.json"
    config = read_config(model_dir)
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown method")
        raise _problem(
            path, "quantization_config", f"weights already quantized ({method})", "the unquantized checkpoint"
        )
    listed = config.get("architectures") or []
    model_type = config.get("model_type")
    if listed:
        architecture = ARCHITECTURES.get(str(listed[0]))
        where, found = "architectures", str(listed[0])
    else:
        architecture = _BY_MODEL_TYPE.get(str(model_type))
        where, found = "model_type", repr(model_type)
    if architecture is not None:
        return architecture
    accepted = ", ".join(f"{a.name} ({a.family})" for a in _KNOWN)
    if found.startswith(("Gemma3For", "Gemma3nFor")) or model_type in ("gemma3", "gemma3n"):
        accepted += "; of Gemma 3 the text-only checkpoints (Gemma3ForCausalLM) are accepted"
    raise _problem(path, where, found, accepted)


def target_modules(model: Path | Architecture, group: TargetGroup) -> list[str]:
    """Module suffixes that LoRA adapts for a target group of a model folder (or of its family)."""
    architecture = require_supported(model) if isinstance(model, Path) else model
    return list(architecture.modules(group))


def tensor_shapes(model_dir: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name → shape over all safetensors files, from their headers alone.

    A safetensors file starts with the header's length (8 bytes, little endian) and the header as JSON
    (https://huggingface.co/docs/safetensors). Raises BaseModelError when there is no such file or one
    cannot be read.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _weight_files(model_dir):
        for name, entry in _header(file).items():
            if name != "__metadata__":
                shapes[name] = tuple(entry["shape"])
    return shapes


def tensor_files(model_dir: Path) -> dict[str, Path]:
    """Tensor name → the safetensors file that holds it. Raises BaseModelError as ``tensor_shapes`` does."""
    return {
        name: file for file in _weight_files(model_dir) for name in _header(file) if name != "__metadata__"
    }


def _weight_files(model_dir: Path) -> list[Path]:
    index = model_dir / "model.safetensors.index.json"
    if index.is_file():
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted({model_dir / name for name in weight_map.values()})
    else:
        files = sorted(model_dir.glob("model*.safetensors"))
    if not files:
        raise _problem(model_dir, "", "no model*.safetensors", "weights in safetensors files")
    return files


def _header(file: Path) -> dict[str, Any]:
    accepted = "a complete safetensors file"
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= file.stat().st_size - 8:
                raise _problem(file, "", "cut off, or not a safetensors file", accepted)
            header = json.loads(stream.read(length))
    except FileNotFoundError:
        raise _problem(file, "", "no such file, though the index names it", accepted) from None
    except ValueError:
        raise _problem(file, "", "no readable header", accepted) from None
    if not isinstance(header, dict):
        raise _problem(file, "", "no readable header", accepted)
    end = max((e["data_offsets"][1] for n, e in header.items() if n != "__metadata__"), default=0)
    if 8 + length + end > file.stat().st_size:
        raise _problem(file, "", f"{file.stat().st_size} bytes where {8 + length + end} belong", accepted)
    return header


def read_facts(model_dir: Path) -> ModelFacts:
    """Sizes of a supported model. Raises BaseModelError when the folder lacks what they need."""
    architecture = require_supported(model_dir)
    config = read_config(model_dir)
    shapes = tensor_shapes(model_dir)
    tied = bool(config.get("tie_word_embeddings", architecture.tied_by_default))
    # Some checkpoints store the tied head a second time.
    parameters = sum(
        math.prod(shape) for name, shape in shapes.items() if not (tied and name == "lm_head.weight")
    )
    embedding = next((s for n, s in shapes.items() if n.endswith("embed_tokens.weight")), None)
    if embedding is None:
        raise _problem(model_dir, "", "no embed_tokens.weight among the weights", "a complete checkpoint")
    window = config.get("sliding_window", architecture.sliding_window_by_default)
    has_switch = architecture.model_type in ("qwen2", "qwen3", "smollm3")
    if has_switch and not config.get("use_sliding_window", False):
        window = None
    return ModelFacts(
        architecture=architecture.name,
        parameters=parameters,
        embedding_parameters=math.prod(embedding),
        layers=_integer(model_dir, config, "num_hidden_layers"),
        hidden=_integer(model_dir, config, "hidden_size"),
        vocab=embedding[0],
        tied=tied,
        context_length=_integer(model_dir, config, "max_position_embeddings"),
        sliding_window=window,
    )


def _integer(model_dir: Path, config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value <= 0:
        raise _problem(model_dir / "config.json", key, repr(value), "a positive integer")
    return value
