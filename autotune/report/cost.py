"""What a study cost, from its events: over all the processes that worked on it, killed ones included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cost:
    """``made`` counts what was made by stage, ``seconds`` what that took; ``wall_s`` sums the processes' spans.

    ``reused`` are the distinct entries that the last process found made.
    """

    made: Mapping[str, int]
    seconds: Mapping[str, float]
    wall_s: float
    reused: int

    def as_json(self) -> dict[str, Any]:
        return {
            "wall_s": round(self.wall_s, 1),
            "seconds_by_stage": {stage: round(s, 2) for stage, s in self.seconds.items()},
            "adapters_trained": self.made.get("train", 0),
            "templates_built": self.made.get("template", 0),
            "points_built": self.made.get("point", 0),
            "artifacts_built": self.made.get("assemble", 0),
            "probes": self.made.get("probe", 0),
            "scorings": self.made.get("answers", 0),
            "stages_reused": self.reused,
        }


def cost_sentence(cost: Mapping[str, Any]) -> str:
    """What was made, in how long, and what was not made again."""
    return (f"{_count(cost['adapters_trained'], 'adapter')} trained, "
            f"{_count(cost['artifacts_built'], 'artifact')} assembled, {cost['wall_s']:.0f} s; "
            f"{_count(cost.get('stages_reused', 0), 'stage')} reused.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def account(events: Iterable[Mapping[str, Any]]) -> Cost:
    """Add up the lines of events.jsonl."""
    made: dict[str, int] = {}
    seconds: dict[str, float] = {}
    wall = 0.0
    started = last = None
    own: set[str] = set()
    reused: set[str] = set()
    for event in events:
        if event["event"] == "run_start":
            wall += last - started if started is not None and last is not None else 0.0
            started = event["time"]
            own, reused = set(), set()
        last = event["time"]
        if event["event"] != "stage_end":
            continue
        key, stage = event["key"], event["stage"]
        if not event["cached"]:
            own.add(key)
            made[stage] = made.get(stage, 0) + 1
            seconds[stage] = seconds.get(stage, 0.0) + event["seconds"]
        elif key not in own:
            reused.add(key)
    wall += last - started if started is not None and last is not None else 0.0
    return Cost(made, seconds, wall, len(reused))
