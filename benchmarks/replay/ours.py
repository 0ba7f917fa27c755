"""autotune's own search on a table: the very functions that a study runs, and what is left when a part is taken
away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autotune.pareto import Direction
from autotune.search.asking import Asked, Known, ask
from autotune.search.next_work import next_work
from autotune.search.rungs import (
    AdapterState,
    Costs,
    Finish,
    Outcome,
    Plan,
    Propose,
    Rung,
    Score,
    Skip,
    State,
    Stop,
    Train,
    Work,
    passed_by,
)
from autotune.search.schedule import Budget, Spent, first_points
from autotune.search.telling import expected
from benchmarks.replay.nearest import Nearest, coordinates, space_of
from benchmarks.replay.world import OBJECTIVES, World

DIRECTIONS: tuple[Direction, ...] = ("maximize", "maximize")


@dataclass(frozen=True)
class Ours:
    """``fan_out``: an adapter is trained once for all points. ``constrained``: the sampler is told of violations.
    ``sampled``: TPE proposes, not chance."""

    rungs: tuple[float, ...] = (0.2, 0.4, 1.0)
    fan_out: bool = True
    constrained: bool = True
    sampled: bool = True
    experts: bool = True
    width: int = 1

    def run(self, world: World, seed: int, budget: Budget | None = None) -> str:
        """Search until nothing is left to do; returns the sentence that ended it."""
        return _Run(self, world, seed, budget or Budget(None, None, None)).to_the_end()


@dataclass
class _Run:
    how: Ours
    world: World
    seed: int
    budget: Budget
    adapters: dict[int, AdapterState] = field(default_factory=dict)
    steps_s: list[float] = field(default_factory=list)
    judge_s: list[float] = field(default_factory=list)
    score_s: dict[str, float] = field(default_factory=dict)
    trace: list[tuple[float, Work]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.space = space_of(self.world.table)
        self.nearest = Nearest(self.world.table, self.space)
        allowed = self.world.allowed()
        self.points = {p.label: p.values for p in self.world.table.points if p.label in allowed}

    def to_the_end(self) -> str:
        self.world.probe()
        while True:
            work = next_work(self.state(), self.plan())
            self.trace.append((self.world.seconds, work))
            if isinstance(work, Finish):
                return work.reason
            self.carry_out(work)

    def state(self) -> State:
        spent = Spent(len(self.adapters), self.world.trials, self.world.seconds)
        return State(tuple(self.adapters.values()), len(self.adapters) == len(self.world.table.adapters), spent)

    def plan(self) -> Plan:
        steps = [a.steps for a in self.adapters.values()]
        costs = Costs(
            step=_mean(self.steps_s), steps=_mean(steps), judge=_mean(self.judge_s), score=dict(self.score_s))
        return Plan(self.how.rungs, self.points, OBJECTIVES, self.world.limits, self.budget, self.how.width, costs,
                    least_gain=0.0)

    def carry_out(self, work: Work) -> None:
        match work:
            case Propose(count):
                for _ in range(min(count, len(self.world.table.adapters) - len(self.adapters))):
                    self._propose()
            case Train(numbers, rung):
                for number in numbers:
                    self._train(number, rung)
            case Score(number, label):
                self._score(number, label)
            case Stop(number, reason):
                self._put(number, stopped=reason)
            case Skip(number, label, _):
                self._put(number, scored={**self.adapters[number].scored, label: Outcome("SKIPPED")})

    def _propose(self) -> None:
        params = self._asked().params
        adapter = self.nearest(params, {a.number for a in self.world.table.adapters} - set(self.adapters))
        self.adapters[adapter.number] = AdapterState(adapter.number, adapter.params, adapter.steps)

    def _asked(self) -> Asked:
        """What a study's proposals would be, but for the adapters being those of the table."""
        told = expected(self.state(), self.plan()) if self.adapters else {}
        known = []
        for number, adapter in self.adapters.items():
            if found := told.get(number):
                known.append(Known(coordinates(adapter.params), found.values,
                                   found.violations if self.how.constrained else {}))
            elif adapter.stopped is None:
                known.append(Known(coordinates(adapter.params)))
        first = first_points(self.space) if self.how.experts else []
        at = len(self.adapters)
        taken = {a.params for a in self.adapters.values()}
        asked = ask(self.space, known if self.how.sampled else [], taken, DIRECTIONS, self.seed,
                    fixed=first[at] if at < len(first) else None, startup=max(6, len(first)))
        assert asked is not None
        return asked

    def _train(self, number: int, rung: int) -> None:
        adapter, fraction = self.adapters[number], self.how.rungs[rung]
        table = self.world.table.adapters[number]
        before = adapter.rungs[-1] if adapter.rungs else None
        took = self.world.train(number, before.fraction if before else 0.0, fraction)
        if table.failed is not None and len(table.rungs) <= self.world.table.rungs.index(fraction):
            self._put(number, stopped=table.failed)
            return
        reached = table.rungs[self.world.table.rungs.index(fraction)]
        self.steps_s.append(took / max(1, reached.step - (before.step if before else 0)))
        passed = passed_by(before, self.how.rungs[len(adapter.rungs):rung])
        found = Rung(reached.step, fraction, reached.valid_loss, {}, 0, took)
        if fraction < 1:
            found = self._judged(number, found)
        self._put(number, rungs=(*adapter.rungs, *passed, found))

    def _judged(self, number: int, reached: Rung) -> Rung:
        start = self.world.seconds
        judged = self.world.judge(number, reached.fraction, self.world.judged_labels())
        self.judge_s.append(self.world.seconds - start)
        return replace(reached, valid_loss=judged.loss, right=judged.right, rows=judged.rows)

    def _score(self, number: int, label: str) -> None:
        adapter, before = self.adapters[number], self.world.seconds
        again = bool(adapter.scored) and not self.how.fan_out
        values = self.world.score(number, label, self.world.table.adapters[number].train_s if again else 0.0)
        self.score_s.setdefault(label, self.world.seconds - before)
        outcome = Outcome("COMPLETE", values) if values else Outcome("FAILED")
        self._put(number, scored={**adapter.scored, label: outcome})

    def _put(self, number: int, **changes: Any) -> None:
        self.adapters[number] = replace(self.adapters[number], **changes)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


