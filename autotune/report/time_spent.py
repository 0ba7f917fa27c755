"""Where a run's time went: by stage, what was made and what was found made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from autotune.report.cost import account

#: What a stage does, in the order of a run; ``probe`` and the rest are the names in events and results.
_STAGES = {
    "base": "preparing the base model", "data": "tokenizing the data", "tokenizer": "checking the tokenizer",
    "template": "exporting the base model", "point": "building the base model's artifacts",
    "probe": "measuring time and memory", "verify": "comparing logits with PyTorch", "train": "training adapters",
    "rung": "training adapters part of the way", "judge": "judging adapters",
    "assemble": "assembling artifacts", "answers": "scoring answers", "certify": "measuring the finalists again",
}


@dataclass(frozen=True)
class Spent:
    """``share`` is of the run's whole time; ``made`` and ``reused`` count entries of the store."""

    stage: str
    title: str
    seconds: float
    share: float
    made: int
    reused: int


def time_spent(cost: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> list[Spent]:
    """A row a stage in the order of a run, and last what no stage accounts for (``made`` is 0).

    ``cost`` is that of results.json; ``events`` tell how many entries were made, over all processes, and how many the
    last one found made. Without events only the seconds are known.
    """
    events = list(events)
    made, reused = account(events).made, _reused(events)
    seconds: Mapping[str, float] = cost["seconds_by_stage"]
    whole = max(cost["wall_s"], sum(seconds.values()))
    names = [*(n for n in _STAGES if n in seconds or n in reused),
             *sorted(n for n in {*seconds, *reused} if n not in _STAGES)]
    rows = [Spent(n, _STAGES.get(n, n), seconds.get(n, 0.0), seconds.get(n, 0.0) / (whole or 1.0), made.get(n, 0),
                  reused.get(n, 0)) for n in names]
    rest = whole - sum(seconds.values())
    return [*rows, Spent("", "starting, searching and waiting", rest, rest / whole, 0, 0)] if rest >= 0.05 else rows


def _reused(events: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    own: set[str] = set()
    found: dict[str, set[str]] = {}
    for event in events:
        if event["event"] == "run_start":
            own, found = set(), {}
        elif event["event"] == "stage_end" and not event["cached"]:
            own.add(event["key"])
        elif event["event"] == "stage_end" and event["key"] not in own:
            found.setdefault(event["stage"], set()).add(event["key"])
    return {stage: len(keys) for stage, keys in found.items()}
