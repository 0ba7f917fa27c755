"""manifest.json of a bundle (schema ``autotune/bundle@1``, beside this file), without its files and digest."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import resources
from typing import Any

from autotune.bundle.choice import Chosen
from autotune.bundle.licence import Licence
from autotune.bundle.samples import Samples
from autotune.deployment import Deployment, study_of
from autotune.finished import unit_of
from autotune.study_file import StudyFile, parse_duration
from objectives.base import split_device
from objectives.integrity import SCHEMA
from objectives.session import context_length

_PROBED = ("python", "numpy", "onnxruntime", "onnxruntime_genai")


def document(
    chosen: Chosen, found: Deployment, samples: Samples, licence: Licence, *, adapter: bool
) -> dict[str, Any]:
    """Everything that the bundle says of itself. No time of day is in it: the same trial gives the same bytes."""
    run, trial = chosen.run, chosen.trial
    assert trial.artifact
    study = study_of(run)
    return {
        "schema": SCHEMA,
        "study": dict(run.document["study"]),
        "trial": trial.number,
        "selected": trial.number == run.selected,
        "deploy_point": trial.deploy_point,
        "params": dict(trial.params),
        "task": asdict(found.task),
        "target": {"provider": study.target.provider, "provider_options": dict(study.target.provider_options),
                   "threads": study.target.threads, "context_length": context_length(trial.artifact)},
        "workload": workload(study, found),
        "objectives": run.document["objectives"],
        # Limits on the study's other devices are not this bundle's to check where it comes to.
        "constraints": [c for c in run.document["constraints"] if not split_device(c["objective"])[1]],
        "confidence": study.confidence,
        "certified": chosen.certified,
        "certificate": run.certificate,
        "measurements": {key: {**value, "unit": unit_of(key, run.units)} for key, value in chosen.values.items()},
        "measured_with": _measured_with(chosen),
        "environment": run.document["environment"],
        "base_model": {"id": study.model, **found.model, "licence": asdict(licence)},
        "data": {"licence": {"name": None, "source": "not known to autotune"}},
        "samples": samples.as_json(),
        "adapter": "adapter" if adapter else None,
    }


def workload(study: StudyFile, found: Deployment) -> dict[str, Any]:
    """What the certificate timed, in the device's words; the rows' own prompts are the sample rows' there."""
    work, task = study.target.workload, found.task
    longest = max((len(ids) + 1 for ids in task.label_ids), default=task.max_new_tokens)
    sustain = study.certificate.sustain
    return {
        "prompt_tokens": work.prompt_tokens, "new_tokens": work.new_tokens or longest,
        "max_seconds": parse_duration(study.certificate.time),
        "sustain_seconds": parse_duration(sustain) if sustain else 0.0,
    }


def _measured_with(chosen: Chosen) -> dict[str, Any]:
    """Machine and library versions of what was measured, as the probe told them, else as the run knew them."""
    probe = chosen.look["timing"].get("probe") if chosen.look else None
    if probe:
        return {"versions": probe["versions"], "machine": probe["machine"]}
    here = chosen.run.document["environment"]
    about = {**here, **here.get("device", {})}  # of the device, where it was another machine
    known = {**about["libraries"], "python": about["python"]}
    return {"versions": {name: known.get(name.replace("_", "-")) for name in _PROBED},
            "machine": {key: about.get(key) for key in ("cpu", "cores", "memory_gb", "platform")}}


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every manifest.json of a bundle holds to."""
    text = resources.files("autotune.bundle").joinpath("manifest.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
