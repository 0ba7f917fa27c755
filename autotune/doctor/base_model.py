"""Whether a base model can be used, as far as can be told without downloading or unpacking it."""

from __future__ import annotations

from pathlib import Path

from autotune.doctor.finding import Finding
from autotune.errors import BaseModelError
from autotune.pipeline.architectures import read_facts
from autotune.pipeline.base_model import require_usable, resolve

TOPIC = "base model"


def base_model(spec: str) -> Finding:
    """What a study's ``model: SPEC`` would find here; relative paths start at the working directory."""
    try:
        source = resolve(spec, Path.cwd())
        if source.kind == "folder":
            require_usable(source.path)
            facts = read_facts(source.path)
            return Finding(TOPIC, spec, f"{facts.architecture}, {facts.parameters / 1e6:.1f} million parameters, "
                                        f"context of {facts.context_length} tokens")
    except BaseModelError as error:
        problems = error.problems
        return Finding(TOPIC, spec, "; ".join(p.found for p in problems), "problem", "runs of this model",
                       f"give {problems[0].accepted}")
    told = {"hub": "a name of the hub, asked for when a run begins", "gguf": "a file that is here",
            "package": "a package that is installed"}
    return Finding(TOPIC, spec, told[source.kind])
