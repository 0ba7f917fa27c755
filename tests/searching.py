"""A search with made-up adapters: `next_work` carried out to the end without training anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autotune.constraints import parse
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
from autotune.search.schedule import Budget, Spent
from search_spaces.adapter import AdapterParams

POINTS = {"fp16": {"latency_ms.p50": 60.0, "size_mb": 540.0}, "int8": {"latency_ms.p50": 40.0, "size_mb": 300.0},
          "int4": {"latency_ms.p50": 30.0, "size_mb": 200.0}}
LOSES = {"fp16": 0.0, "int8": 0.0, "int4": 0.05}
STEPS, ROWS = 100, 64
Quality = Callable[[int], float]


def make_plan(rungs: tuple[float, ...] = (0.2, 0.4, 1.0), budget: Budget | None = None, **changes: Any) -> Plan:
    limits = [parse("accuracy >= 0.6"), parse("latency_ms.p50 <= 70"), parse("size_mb <= 600")]
    objectives = [("accuracy", "maximize"), ("latency_ms.p50", "minimize"), ("size_mb", "minimize")]
    costs = Costs(step=1.0, steps=STEPS, judge=10.0, score={"fp16": 30.0, "int8": 20.0, "int4": 15.0})
    plan = Plan(rungs, POINTS, objectives, limits, budget or Budget(12, None, None), costs=costs)  # type: ignore[arg-type]
    return replace(plan, **changes)


def adapter(number: int, fractions: tuple[float, ...] = (), quality: float = 0.7, **changes: Any) -> AdapterState:
    """One that was judged at these rungs as an adapter of this final accuracy is in the mean."""
    spans = zip((0.0, *fractions), fractions, strict=False)
    rungs = tuple(rung(f, quality, STEPS * (f - before)) for before, f in spans)
    return replace(AdapterState(number, AdapterParams(8, 8, 1e-4 * (number + 1)), STEPS, rungs), **changes)


def rung(fraction: float, quality: float, seconds: float) -> Rung:
    judged = {label: round(ROWS * (quality - lost - 0.15 * (1 - fraction))) for label, lost in LOSES.items()}
    return Rung(round(STEPS * fraction), fraction, 1.2 - quality, judged if fraction < 1 else {}, ROWS, seconds)


def scored(quality: float, *labels: str) -> dict[str, Outcome]:
    return {p: Outcome("COMPLETE", {"accuracy": quality - LOSES[p], **POINTS[p]}) for p in labels}


def state(*adapters: AdapterState, exhausted: bool = False, seconds: float = 0.0) -> State:
    trials = sum(o.state != "SKIPPED" for a in adapters for o in a.scored.values())
    return State(adapters, exhausted, Spent(len(adapters), trials, seconds))


@dataclass
class Search:
    """``quality`` gives an adapter's final accuracy by its number; ``space`` is how many there are."""

    plan: Plan
    quality: Quality
    space: int = 1000
    generates: bool = False
    adapters: dict[int, AdapterState] = field(default_factory=dict)
    seconds: float = 0.0
    done: list[Work] = field(default_factory=list)

    def state(self) -> State:
        return state(*self.adapters.values(), exhausted=len(self.adapters) >= self.space, seconds=self.seconds)

    def run(self, most: int = 1000) -> str:
        for _ in range(most):
            work = next_work(self.state(), self.plan)
            self.done.append(work)
            if isinstance(work, Finish):
                return work.reason
            self.carry_out(work)
        raise AssertionError(f"no end after {most} pieces of work: {self.done[-5:]}")

    def carry_out(self, work: Work) -> None:
        match work:
            case Propose(count):
                for number in range(len(self.adapters), min(self.space, len(self.adapters) + count)):
                    self.adapters[number] = adapter(number)
            case Train(numbers, at):
                self._train(numbers, at)
            case Score(number, label):
                self.seconds += self.plan.costs.score[label]
                self._put(number, scored={**self.adapters[number].scored, **scored(self.quality(number), label)})
            case Skip(number, label, _):
                self._put(number, scored={**self.adapters[number].scored, label: Outcome("SKIPPED")})
            case Stop(number, reason):
                self._put(number, stopped=reason)

    def _train(self, numbers: tuple[int, ...], at: int) -> None:
        fraction, took = self.plan.rungs[at], 0.0
        for number in numbers:
            one = self.adapters[number]
            before = one.rungs[-1].fraction if one.rungs else 0.0
            found = rung(fraction, self.quality(number), STEPS * (fraction - before))
            if self.generates:
                found = replace(found, right={})
            took = max(took, found.seconds)
            found = replace(found, seconds=found.seconds / len(numbers))
            passed = passed_by(one.rungs[-1] if one.rungs else None, self.plan.rungs[len(one.rungs):at])
            self._put(number, rungs=(*one.rungs, *passed, found))
        self.seconds += took + (10.0 * len(numbers) if fraction < 1 else 0)

    def _put(self, number: int, **changes: Any) -> None:
        self.adapters[number] = replace(self.adapters[number], **changes)

    def best(self) -> Mapping[str, float]:
        """The best accuracy by point."""
        found: dict[str, float] = {}
        for one in self.adapters.values():
            for label, outcome in one.scored.items():
                if outcome.state == "COMPLETE":
                    found[label] = max(found.get(label, 0.0), outcome.values["accuracy"])
        return found
