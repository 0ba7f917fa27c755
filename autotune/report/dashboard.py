"""What optuna-dashboard shows of a study as a whole: attributes in words beside the trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.finished import measurement
from autotune.report.told import outcome
from autotune.report.wording import figure, join, measured, with_unit
from autotune.study_file import StudyFile, TargetSection


def proposals_name(study: str) -> str:
    """The name of the proposal study beside the visible one."""
    return f"{study}/proposals"


def visible_words(file: StudyFile, document: Mapping[str, Any]) -> dict[str, str]:
    """The visible study, as results.json has it so far; what is asked first comes first, as five are shown at once."""
    return {
        "outcome": outcome(document),
        "front": join([_on_front(t) for t in document["trials"] if t["on_front"]] or ["no trial"]),
        "limits": "; ".join(_limit(c) for c in document["constraints"]) or "none",
        "about": "A trial is an adapter at a deploy point, measured on the exported artifact. "
                 f"What the sampler was told of each adapter is in {proposals_name(file.name)}.",
        "model": file.model,
        "target": _target(file.target),
        **({"devices": join([f"{name} ({each.host}: {each.provider}, {each.threads} thread{'s' * (each.threads > 1)})"
                             for name, each in file.devices.items()])} if file.devices else {}),
        "baseline": _baseline(document),
    }


def proposal_words(file: StudyFile) -> dict[str, str]:
    """The proposal study."""
    return {
        "about": "A trial is an adapter. Its values are those at its largest and at its smallest artifact, its "
                 f"constraints those of its best artifact. The trials to choose from are in {file.name}.",
        "model": file.model,
    }


def _target(target: TargetSection) -> str:
    work = target.workload
    asked = "the validation rows' own prompts" if work.from_ else (
        f"{work.prompt_tokens} prompt and {work.new_tokens} new tokens")
    return f"{target.provider}, {target.threads} thread{'s' * (target.threads > 1)}; {asked}"


def _limit(found: Mapping[str, Any]) -> str:
    if found["baseline"] is None:
        return str(found["expr"])
    return f"{found['expr']} ({figure(found['bound'])}{with_unit(found['unit'])})"


def _baseline(document: Mapping[str, Any]) -> str:
    found = document["baseline"]
    if found is None:
        return "not measured"
    values = [f"{o['name']} {measured(measurement(found['values'][o['name']], o['unit']))}"
              for o in document["objectives"] if o["name"] in found["values"]]
    return f"untrained base at {found['deploy_point']}: {', '.join(values)}"


def _on_front(trial: Mapping[str, Any]) -> str:
    tied = f" (tied with {trial['tied_with']})" if trial["tied_with"] is not None else ""
    return f"trial {trial['number']}{tied}"
