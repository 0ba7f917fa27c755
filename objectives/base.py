"""What can be measured: a name, a unit, which way is better, and where its raw samples come from.

To add an objective

1. Add a line to ``OBJECTIVES`` below. ``source`` says which raw material it is computed from.
2. Made from what the probe already returns? Then only its formula is missing: a request's timings become
   a number in ``latency.VALUES``; answers become a score in the engine's ``metrics``.
3. Made from something new? Let ``probe`` emit it as an event of its own and document the event there.

Nothing else needs to know: configuration, constraints, search and report all read this table.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]
Source = Literal["predictions", "latency", "memory", "load", "size"]

#: MB is 10^6 bytes everywhere, as on a disk's or a memory card's label.
MB = 1_000_000


@dataclass(frozen=True)
class Objective:
    """A measured quantity.

    ``statistics`` are the names that may follow its own after a dot (``latency_ms.p95``), the default
    first. It is empty where one run gives a single value.
    """

    name: str
    unit: str
    direction: Direction
    source: Source
    statistics: tuple[str, ...] = ()


_TIMES = ("p50", "p90", "p95", "p99", "mean")
# Of a rate the slow end is the low one; the high percentiles are there for whoever asks.
_RATES = ("p50", "p01", "p05", "p10", "p90", "p95", "p99", "mean")

#: ``accuracy`` and ``macro_f1`` are for task ``choice``, ``exact_match`` for ``generate``.
OBJECTIVES: dict[str, Objective] = {
    o.name: o
    for o in (
        Objective("accuracy", "", "maximize", "predictions"),
        Objective("macro_f1", "", "maximize", "predictions"),
        Objective("exact_match", "", "maximize", "predictions"),
        Objective("ttft_ms", "ms", "minimize", "latency", _TIMES),
        Objective("tpot_ms", "ms", "minimize", "latency", _TIMES),
        Objective("latency_ms", "ms", "minimize", "latency", _TIMES),
        Objective("tokens_per_s", "tokens/s", "maximize", "latency", _RATES),
        Objective("peak_rss_mb", "MB", "minimize", "memory"),
        Objective("load_ms", "ms", "minimize", "load"),
        Objective("size_mb", "MB", "minimize", "size"),
    )
}


#: Metrics of answers that are shares from 0 to 1, and those of them that are the share of rows answered right.
SHARES = tuple(o.name for o in OBJECTIVES.values() if o.source == "predictions")
ROW_SHARES = ("accuracy", "exact_match")


#: What a device shapes as much as the artifact does: only these may be asked for of a further device.
_OF_A_DEVICE: tuple[Source, ...] = ("latency", "memory", "load")
PER_DEVICE = tuple(o.name for o in OBJECTIVES.values() if o.source in _OF_A_DEVICE)


def split_device(key: str) -> tuple[str, str]:
    """``'latency_ms.p95@pi'`` → ``('latency_ms.p95', 'pi')``; the name is empty for what is the target's.

    A metric that only the study knows has none, whatever its name holds.
    """
    if ":" in key:
        return key, ""
    plain, _, device = key.partition("@")
    return plain, device


def on_device(key: str, device: str) -> str:
    """The key of a value on a device; the target, whose name is empty, adds none."""
    return f"{key}@{device}" if device else key


def name_of(key: str) -> str:
    """``latency_ms`` of ``latency_ms.p95@pi``."""
    return split_device(key)[0].partition(".")[0]


def source_of(key: str) -> Source:
    """Where an objective's raw samples come from; a metric that only the study knows is made of answers."""
    objective = OBJECTIVES.get(name_of(key))
    return objective.source if objective else "predictions"


def is_answers(key: str) -> bool:
    """Whether an objective is made of the model's answers, and so depends on its weights."""
    return source_of(key) == "predictions"


def unit_of(key: str) -> str:
    """The unit of an objective, empty for a metric that only the study knows."""
    objective = OBJECTIVES.get(name_of(key))
    return objective.unit if objective else ""


def parse_key(key: str) -> tuple[Objective, str | None]:
    """``'latency_ms.p95'`` → the objective and ``'p95'``; ``'latency_ms'`` → its default, ``'p50'``.

    A device that is named after it changes nothing. The statistic is ``None`` for objectives that have none. Raises
    ValueError naming what is accepted.
    """
    key, _ = split_device(key)
    name, dot, statistic = key.partition(".")
    objective = OBJECTIVES.get(name)
    if objective is None:
        hint = _nearest(name, OBJECTIVES)
        raise ValueError(f"unknown objective {name!r}{hint}; accepted: {', '.join(OBJECTIVES)}")
    if not dot:
        return objective, objective.statistics[0] if objective.statistics else None
    if not objective.statistics:
        raise ValueError(f"objective {name!r} takes no statistic, found {key!r}; accepted: {name}")
    if statistic not in objective.statistics:
        accepted = ", ".join(f"{name}.{s}" for s in objective.statistics)
        raise ValueError(f"objective {name!r} has no statistic {statistic!r}; accepted: {name}, {accepted}")
    return objective, statistic


def _nearest(name: str, accepted: dict[str, Objective]) -> str:
    close = difflib.get_close_matches(name, accepted, n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""
