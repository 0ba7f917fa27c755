"""``autotune device bench``: what a device takes for requests of one length, without a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autotune.errors import ConfigError, Problem
from autotune.pipeline import stages
from autotune.pipeline.template_params import template_params
from autotune.questions import Target, probe_request
from autotune.workers import Worker
from objectives.session import context_length, min_generator_length
from search_spaces.deploy import DeployParams

_CONTEXT = 256
_POINT = DeployParams("int4")
#: Ids of words, past those that tokenizers keep for their own signs.
_FIRST_ID = 100
_MAX_SECONDS = 120.0


def request(artifact: Path, target: Target, prompt_tokens: int, new_tokens: int, samples: int) -> dict[str, Any]:
    """A probe's request that times prompts of made-up ids. Raises ConfigError for a folder that is no artifact."""
    try:
        config = json.loads((artifact / "genai_config.json").read_text(encoding="utf-8"))
        vocabulary, longest = int(config["model"]["vocab_size"]), context_length(artifact)
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError([Problem("--artifact", str(artifact), "no genai_config.json that can be read",
                                   "a model folder for ONNX Runtime GenAI, such as RUN/artifacts/trial-N")]) from None
    if prompt_tokens + new_tokens > longest:
        raise ConfigError([Problem("--prompt-tokens", "", f"{prompt_tokens} and {new_tokens} new ones",
                                   f"at most {longest} together, the artifact's context")])
    first = min(_FIRST_ID, vocabulary // 2)
    prompt = [first + i % (vocabulary - first) for i in range(prompt_tokens)]
    task = {"kind": "latency", "prompts": [prompt], "new_tokens": new_tokens, "ignore_eos": True, "samples": samples,
            "max_seconds": _MAX_SECONDS}
    return probe_request(artifact, target, min_generator_length(artifact), [task])


def tiny_artifact(worker: Worker, folder: Path) -> Path:
    """An int4 artifact of a random model of 0.1 million parameters: it times the device's fixed costs."""
    from autotune.doctor.tiny_model import make_model

    for name in ("model", "template", "point"):
        (folder / name).mkdir()
    worker.run(make_model, folder / "model")
    worker.run(stages.make_template, folder / "model", folder / "template", template_params(_POINT, "cpu", _CONTEXT))
    worker.run(stages.make_point, folder / "template", folder / "model", folder / "point", _POINT, "cpu", _CONTEXT)
    return folder / "point" / stages.ARTIFACT_FOLDER
