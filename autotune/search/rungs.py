"""A search with fidelities as plain records: what is known of every adapter, what limits the study, what to do next.

An adapter trains in *rungs*, fractions of its steps. At each rung but the last it is *judged* cheaply; at the last
one it is *scored* on real artifacts. `search.next_work.next_work` makes the next piece of `Work` out of a `State` and
a `Plan`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from autotune.constraints import Constraint
from autotune.pareto import Direction
from autotune.search.schedule import Budget, Spent
from search_spaces.adapter import AdapterParams

ScoredState = Literal["COMPLETE", "PRUNED", "FAILED", "SKIPPED"]


@dataclass(frozen=True)
class Rung:
    """An adapter as it was at one rung: ``right`` of ``rows`` validation rows by the label of a deploy point.

    ``right`` is empty where answers are not judged (``generate`` tasks, the last rung). ``seconds`` are those of this
    rung's own training, from the rung before it, ``judge_s`` those of judging it; both 0 where the store had it.
    """

    step: int
    fraction: float
    valid_loss: float | None
    right: Mapping[str, int]
    rows: int
    seconds: float
    judge_s: float = 0.0

    @property
    def passed_by(self) -> bool:
        """Whether training went on to a later rung without a stop at this one; ``step`` is then where it began."""
        return self.fraction < 1 and not self.rows


def step_seconds(adapters: Iterable[Sequence[Rung]]) -> float | None:
    """The mean seconds of a step in these adapters' rungs; None where the store had them all, which tells nothing."""
    made = [(rung.seconds, rung.step - before) for rungs in adapters
            for rung, before in zip(rungs, [0, *(r.step for r in rungs)], strict=False) if rung.seconds > 0]
    steps = sum(count for _, count in made)
    return sum(seconds for seconds, _ in made) / steps if steps else None


def passed_by(before: Rung | None, fractions: Sequence[float]) -> list[Rung]:
    """The rungs at ``fractions`` of an adapter that goes on past them from the one ``before``, or its beginning."""
    return [Rung(before.step if before else 0, fraction, None, {}, 0, 0.0) for fraction in fractions]


@dataclass(frozen=True)
class Outcome:
    """What came of an adapter at a deploy point; ``values`` by key, empty for FAILED and SKIPPED."""

    state: ScoredState
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AdapterState:
    """One proposed adapter. ``steps`` are those of its whole training; ``stopped`` the sentence that ended it, None
    while it is going on. One whose training failed is stopped, too."""

    number: int
    params: AdapterParams
    steps: int
    rungs: tuple[Rung, ...] = ()
    scored: Mapping[str, Outcome] = field(default_factory=dict)
    stopped: str | None = None


@dataclass(frozen=True)
class State:
    """Everything that is stored of a search. ``exhausted``: the space holds no adapter that was not proposed yet.

    ``in_flight``: pieces of work that were begun and have not ended, with several workers. Nothing of what will come
    of them is in ``adapters``, nor in ``spent``.
    """

    adapters: tuple[AdapterState, ...]
    exhausted: bool
    spent: Spent
    in_flight: tuple[Work, ...] = ()


@dataclass(frozen=True)
class Costs:
    """Expected seconds, from this run's own events; None or missing where nothing is known yet.

    ``step``: one training step (of ``width`` adapters together). ``steps``: of a typical whole training. ``judge``:
    of one adapter at one rung, all points. ``score``: assembling and asking, by label. ``first``: what comes before
    an adapter's first score, the baseline that limits are relative to. ``reserve``: kept back for what follows the
    search, its certificate above all; ``reserves``: what that is where a point's artifact is chosen, by label.
    """

    step: float | None = None
    steps: float | None = None
    judge: float | None = None
    score: Mapping[str, float] = field(default_factory=dict)
    first: float = 0.0
    reserve: float = 0.0
    reserves: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What does not change while a search runs, but for limits and costs that are learned.

    ``rungs``: ascending fractions, the last one 1. ``points``: by label what is known of each deploy point before any
    training. ``width``: so many adapters train together at no more cost than one. ``answers``: the key that an
    adapter decides, the others being known by point. ``least_gain``: the search ends when no work is expected to add
    this share of the front's hypervolume; 0 for never. ``skips``: pairs that can no longer matter are not scored.
    """

    rungs: tuple[float, ...]
    points: Mapping[str, Mapping[str, float]]
    objectives: Sequence[tuple[str, Direction]]
    constraints: Sequence[Constraint]
    budget: Budget
    width: int = 1
    costs: Costs = Costs()
    answers: str = "accuracy"
    least_gain: float = 0.002
    skips: bool = True


@dataclass(frozen=True)
class Propose:
    """Ask for ``count`` new adapters."""

    count: int


@dataclass(frozen=True)
class Train:
    """Train these adapters on to ``rungs[rung]``, together, and judge each there unless it is the last rung."""

    numbers: tuple[int, ...]
    rung: int


@dataclass(frozen=True)
class Score:
    """Make the artifact of an adapter at a deploy point and measure it: a trial."""

    number: int
    label: str


@dataclass(frozen=True)
class Stop:
    """End an adapter before its last rung; ``reason`` is a sentence for people."""

    number: int
    reason: str


@dataclass(frozen=True)
class Skip:
    """Do not score an adapter at a deploy point; ``reason`` is a sentence for people."""

    number: int
    label: str
    reason: str


@dataclass(frozen=True)
class Wait:
    """Begin nothing before one of the pieces in flight has ended."""


@dataclass(frozen=True)
class Finish:
    """End the search; ``reason`` is a sentence for people. ``out_of_time``: the time budget is what ends it."""

    reason: str
    out_of_time: bool = False


Work = Propose | Train | Score | Stop | Skip | Wait | Finish
