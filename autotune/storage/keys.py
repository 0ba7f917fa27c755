"""What names each stage's output: a hash of its parameters, its inputs' contents, and the libraries that shape it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from autotune.pipeline.template_params import TemplateParams
from autotune.pipeline.tokens import Example
from autotune.storage.entry_key import Key, library_version, make_key
from objectives.request import PROTOCOL
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

_EXPORT = ("onnx", "onnx-ir", "onnxruntime", "onnxruntime-genai", "torch", "transformers")
_ASSEMBLE = ("onnxruntime", "safetensors", "torch")
_TRAIN = ("bitsandbytes", "peft", "torch", "transformers")
_RUNTIME = ("onnxruntime", "onnxruntime-genai")


def base(source: Mapping[str, str], converted: bool) -> Key:
    return make_key("base", 1, {"source": dict(source)}, ("transformers", "gguf") if converted else ())


def data(base: Key, spec: Mapping[str, Any], contents: Mapping[str, str]) -> Key:
    """``spec`` are the arguments that shape the rows; ``contents`` the digest of each file they come from."""
    plain = {k: (list(v) if isinstance(v, tuple) else v) for k, v in spec.items() if k != "base_dir"}
    return make_key("data", 1, {"base": str(base), "spec": plain, "contents": dict(contents)},
                    ("transformers", "tokenizers"))


def adapter(base: Key, data: Key, params: AdapterParams, seed: int) -> Key:
    return make_key("adapter", 2, {"base": str(base), "data": str(data), "params": params.flat(), "seed": seed}, _TRAIN)


def rung(base: Key, data: Key, params: AdapterParams, seed: int, step: int, last: bool) -> Key:
    """An adapter paused after ``step`` of its steps. At the last one it is the adapter itself, by the very key."""
    whole = adapter(base, data, params, seed)
    return whole if last else make_key("rung", 1, {"adapter": str(whole), "step": step}, _TRAIN)


def judgement(trained: Key, points: Mapping[str, Key], full: bool, rows: int) -> Key:
    """``points`` are those whose roundings are judged, by the rounding's label; ``full``: full precision is, too."""
    return make_key("judge", 2, {"adapter": str(trained), "points": {n: str(key) for n, key in points.items()},
                                 "full": full, "rows": rows}, (*_ASSEMBLE, "transformers"))


def template(base: Key, params: TemplateParams) -> Key:
    return make_key("template", 1, {"base": str(base), "params": asdict(params)}, _EXPORT)


def point(template: Key, params: DeployParams, provider: str, context_length: int) -> Key:
    return make_key("point", 1, {"template": str(template), "deploy": params.flat(), "provider": provider,
                                 "context_length": context_length}, _EXPORT)


def tokenizer(template: Key, rows: Sequence[Example], chat: bool) -> Key:
    """The check of an artifact's tokenizer on rows; other training rows leave it as it is."""
    asked = digest([[row.prompt_text, list(row.prompt)] for row in rows])
    return make_key("tokenizer", 1, {"template": str(template), "rows": asked, "chat": chat}, ("onnxruntime-genai",))


def artifact(point: Key, tokenizer: Key, adapter: Key, eos_id: int) -> Key:
    return make_key("artifact", 2, {"point": str(point), "tokenizer": str(tokenizer), "adapter": str(adapter),
                                    "eos_id": eos_id}, _ASSEMBLE)


def export_check(point: Key, prompts: Sequence[Sequence[int]], provider: str) -> Key:
    return make_key("verify", 1, {"point": str(point), "prompts": digest([list(p) for p in prompts]),
                                  "provider": provider}, ("torch", "transformers"))


def probe(stage: str, artifact: Key, tasks: Sequence[Mapping[str, Any]], target: Mapping[str, Any], tier: str) -> Key:
    """A measurement of an artifact. ``target`` is its fingerprint: another machine or thread count measures anew."""
    inputs = {"artifact": str(artifact), "tasks": digest(list(tasks)), "protocol": PROTOCOL, "tier": tier,
              "target": dict(target), "runtime": {name: library_version(name) for name in _RUNTIME}}
    return make_key(stage, 2, inputs)


def timed_task(task: Mapping[str, Any], reference: Key | None) -> dict[str, Any]:
    """What names a latency task: the reference by its key. Where it lies, whether there was memory for both at once,
    and how long one would have waited for a quiet machine do not change what is measured, and stand in the result."""
    kept = {name: value for name, value in task.items() if name not in ("reference", "resident", "max_seconds")}
    return {**kept, "reference": str(reference) if reference else None}


def digest(value: Any) -> str:
    """Of a JSON value that is too long to stand in a manifest."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
