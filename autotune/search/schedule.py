"""What to try next: pure functions from the state of a study to its next work. No I/O, no torch."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune.constraints import Constraint
from autotune.pareto import Direction, losses
from objectives.base import Objective
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams
from search_spaces.space import Space, Value

ACCURACY = "accuracy"

#: Points that do well on most small fine-tuning tasks, best guess first; moved into the space before use.
EXPERT_POINTS: tuple[dict[str, Value], ...] = (
    {"rank": 16, "alpha": 16, "scale": 1.0, "learning_rate": 5e-4, "targets": "all-linear", "epochs": 2},
    {"rank": 16, "alpha": 32, "scale": 2.0, "learning_rate": 2e-4, "targets": "all-linear", "epochs": 2},
    {"rank": 8, "alpha": 16, "scale": 2.0, "learning_rate": 5e-4, "targets": "attention", "epochs": 2},
    {"rank": 32, "alpha": 32, "scale": 1.0, "learning_rate": 1e-3, "targets": "all-linear", "epochs": 2},
)


@dataclass(frozen=True)
class Budget:
    """Limits of a run; None where there is none."""

    adapters: int | None
    trials: int | None
    time_s: float | None


@dataclass(frozen=True)
class Spent:
    adapters: int
    trials: int
    seconds: float


def spent_up(budget: Budget, spent: Spent) -> str | None:
    """The sentence that says which budget is used up, or None while there is some left."""
    if budget.trials is not None and spent.trials >= budget.trials:
        return f"the budget of {budget.trials} trials is used up"
    if budget.time_s is not None and spent.seconds >= budget.time_s:
        return f"the time budget of {budget.time_s:.0f} s is used up"
    return None


def may_train(budget: Budget, spent: Spent) -> str | None:
    """As ``spent_up``, for starting one more adapter."""
    if budget.adapters is not None and spent.adapters >= budget.adapters:
        return f"the budget of {budget.adapters} adapters is used up"
    return spent_up(budget, spent)


def first_points(space: Space) -> list[dict[str, Value]]:
    """The expert points inside this space, each once."""
    points: list[dict[str, Value]] = []
    for wanted in EXPERT_POINTS:
        point = space.nearest_values(wanted)
        if point not in points:
            points.append(point)
    return points


def ask_seed(seed: int, number: int) -> int:
    """The sampler's seed for one ask, so that a resumed study proposes what an unbroken one would."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4])


def missing_pairs(
    adapter: AdapterParams, points: Sequence[DeployParams], done: set[tuple[AdapterParams, DeployParams]]
) -> list[DeployParams]:
    """Deploy points at which this adapter still has to be scored, in the space's order."""
    return [point for point in points if (adapter, point) not in done]


def scoring_order(points: Sequence[DeployParams], cost: Mapping[DeployParams, float]) -> list[DeployParams]:
    """Cheapest evidence first. ``cost`` is what a row's answer takes at each point, in any unit."""
    return sorted(points, key=lambda point: (cost[point], point.label))


def needed_right(
    rows: int, known: Mapping[str, float], complete: Sequence[Mapping[str, float]],
    objectives: Sequence[tuple[str, Direction]], constraints: Sequence[Constraint],
) -> int | None:
    """How many of ``rows`` a new trial must get right to matter, all its values but accuracy being ``known``.

    To matter is to meet the limits and be dominated by none of the ``complete`` trials that do. None where
    that cannot be said: nothing meets the limits yet, so the nearest miss still counts, or something
    else than accuracy is still to be measured.
    """
    feasible = [v for v in complete if all(c.holds(v[c.objective]) for c in constraints)]
    others = [(key, d) for key, d in objectives if key != ACCURACY]
    asked = {key for key, _ in others} | {c.objective for c in constraints} - {ACCURACY}
    if not feasible or not asked <= set(known) or (ACCURACY, "maximize") not in objectives:
        return None
    needed = max((math.ceil(c.bound * rows - 1e-9) for c in constraints
                  if c.objective == ACCURACY and c.op == ">="), default=0)
    mine = losses(known, others)
    for values in feasible:
        theirs = losses(values, others)
        if all(t <= m for t, m in zip(theirs, mine, strict=True)):
            right = round(values[ACCURACY] * rows)
            # At equal cost the same accuracy is a second best; at a higher one it is dominated.
            needed = max(needed, right + (theirs != mine))
    return needed


def adapter_objectives(
    objectives: Sequence[tuple[str, Objective]], measured: Mapping[str, Objective], from_rows: bool, task: str
) -> list[str]:
    """The objectives that an adapter can change, those that its answers decide first: the first of all is what is
    forecast. Where none of them was asked for, it is one that is limited, or accuracy or its like.

    Latency is one of them where answers, not fixed lengths, are timed (``from_rows``).
    """
    told = [key for key, o in objectives if o.source == "predictions"]
    limited = [key for key, o in measured.items() if o.source == "predictions"]
    timed = [key for key, o in objectives if o.source == "latency"] if from_rows else []
    return [*(told or limited[:1] or [ACCURACY if task == "choice" else "exact_match"]), *timed]


def proposal_values(
    by_point: Mapping[DeployParams, Mapping[str, float]], keys: Sequence[str]
) -> list[float]:
    """What the proposal study is told of an adapter: each key at its largest and at its smallest artifact.

    Latency and size follow the deploy point whatever the adapter, so only what the adapter can change
    is in ``keys``. The two ends keep apart an adapter that is good in itself from one that stands
    coarse rounding.
    """
    by_size = sorted(by_point.values(), key=lambda values: values["size_mb"])
    return [values[key] for key in keys for values in (by_size[-1], by_size[0])]


def same_failure(a: tuple[str, str], b: tuple[str, str]) -> bool:
    """Whether two (stage, reason) pairs tell of one cause: numbers and paths may differ."""

    def plain(reason: str) -> str:
        return re.sub(r"\S*/\S+|[\d.,e+-]+", "#", reason)

    return a[0] == b[0] and plain(a[1]) == plain(b[1])
