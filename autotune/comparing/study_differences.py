"""What differs between runs: their studies, their machines and libraries, their targets, their rows. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.finished import FinishedRun
from objectives.base import source_of

#: What a latency, a load time or a peak of memory is of, beside the artifact.
_MACHINE = ("cpu", "cores", "platform")
#: How many requests are timed moves the interval, not the time.
_NOT_THE_TARGET = ("target.workload.samples",)
_TARGETS_OWN = ("latency", "memory", "load")
NOT_SET = "not set"


@dataclass(frozen=True)
class Difference:
    """A field in dotted form and its value in each run."""

    where: str
    values: tuple[str, ...]

    def told(self, labels: Sequence[str]) -> str:
        """``4 in one, 2 in other``."""
        return ", ".join(f"{value} in {label}" for value, label in zip(self.values, labels, strict=True))


def study_differences(runs: Sequence[FinishedRun]) -> tuple[Difference, ...]:
    """Of the resolved studies, a line a key."""
    return _differences([flat(run.study) for run in runs])


def environment_differences(runs: Sequence[FinishedRun]) -> tuple[Difference, ...]:
    """Of machines and library versions."""
    return _differences([flat(run.document["environment"]) for run in runs])


def target_differences(runs: Sequence[FinishedRun]) -> tuple[Difference, ...]:
    """What makes times and memory of these runs figures of different things."""
    found = []
    for run in runs:
        asked = run.study.get("devices")
        target = flat({"target": run.study.get("target", {}), **({"devices": asked} if asked else {})})
        here = run.document["environment"]
        known = here.get("device", here)  # another machine's, where that was measured on
        further = {name: {of: about.get(of) for of in _MACHINE} for name, about in here.get("devices", {}).items()}
        machine = flat({"environment": {**{name: known.get(name) for name in _MACHINE},
                                        **({"devices": further} if further else {})}})
        found.append({k: v for k, v in (target | machine).items() if k not in _NOT_THE_TARGET})
    return _differences(found)


def is_of_the_target(key: str) -> bool:
    """Whether an objective is of a machine as much as of an artifact: times and memory are, answers and size not."""
    return source_of(key) in _TARGETS_OWN


def flat(found: Any, where: str = "") -> dict[str, str]:
    """Nested mappings as dotted names; lists of mappings by index, everything else as JSON on one line."""
    if isinstance(found, Mapping) and found:
        names = [(f"{where}.{key}" if where else str(key), value) for key, value in found.items()]
    elif isinstance(found, list) and any(isinstance(item, Mapping) for item in found):
        names = [(f"{where}[{index}]", item) for index, item in enumerate(found)]
    else:
        return {where: found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, default=str)}
    return {name: value for inner, item in names for name, value in flat(item, inner).items()}


def _differences(flats: Sequence[Mapping[str, str]]) -> tuple[Difference, ...]:
    names = dict.fromkeys(name for found in flats for name in found)
    rows = (Difference(name, tuple(found.get(name, NOT_SET) for found in flats)) for name in names)
    return tuple(row for row in rows if len(set(row.values)) > 1)
