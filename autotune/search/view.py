"""A search's state as its rules read it: who is where, what is expected of whom, what fits into the time left."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.search.forecast import Forecast, Forecasts, judged
from autotune.search.rungs import AdapterState, Costs, Plan, Propose, Score, State, Train, Work, step_seconds
from autotune.search.volume import Volume, volume

#: A value that lies this many standard errors below what is needed is said not to reach it: one chance in 100. Stopping
#: early only tidies up, as an adapter that promises little waits at no cost.
SURE = 2.33
#: The share of adapters that are expected to be trained past each rung. Were a new one expected to be stopped at its
#: first rung more often than not, it would always look cheaper than what was begun, and nothing would get to its end.
GOES_ON = 0.9
#: Seconds where this run has not told any yet: they only have to order work.
_GUESS = Costs(step=1.0, steps=200, judge=20.0, score={"": 20.0})
_NOTHING = Costs(step=0.0, steps=0.0, judge=0.0)


@dataclass(frozen=True, eq=False)
class View:
    state: State
    plan: Plan
    space: Volume
    forecasts: Forecasts

    @classmethod
    def of(cls, state: State, plan: Plan) -> View:
        seen = [o.values[plan.answers] for a in state.adapters for o in a.scored.values() if plan.answers in o.values]
        space = volume(plan.points, plan.objectives, plan.constraints, plan.answers, seen)
        return cls(state, plan, space, Forecasts(state.adapters, plan, space.sign))

    @cached_property
    def _by_number(self) -> dict[int, AdapterState]:
        return {a.number: a for a in self.state.adapters}

    def adapter(self, number: int) -> AdapterState:
        return self._by_number[number]

    @cached_property
    def alive(self) -> tuple[AdapterState, ...]:
        return tuple(a for a in self.state.adapters if a.stopped is None)

    @cached_property
    def ended(self) -> tuple[AdapterState, ...]:
        return tuple(a for a in self.state.adapters if a.stopped is not None)

    def trained(self, number: int) -> int:
        """How many rungs an adapter has behind it."""
        return len(self.adapter(number).rungs)

    @cached_property
    def training(self) -> frozenset[int]:
        """Adapters that a worker trains on just now."""
        return frozenset(n for work in self.state.in_flight if isinstance(work, Train) for n in work.numbers)

    @cached_property
    def going_on(self) -> frozenset[int]:
        """Of those, the ones that are trained past their first rung."""
        return frozenset(n for w in self.state.in_flight if isinstance(w, Train) and w.rung for n in w.numbers)

    @cached_property
    def at_last_rung(self) -> tuple[int, ...]:
        return tuple(a.number for a in self.alive if len(a.rungs) == len(self.plan.rungs))

    @cached_property
    def finished(self) -> tuple[int, ...]:
        """Adapters of which something was scored."""
        return tuple(a.number for a in self.state.adapters if not np.isnan(self.forecasts.scores(a.number)).all())

    def open_points(self, number: int) -> tuple[str, ...]:
        """Deploy points that an adapter was not scored at, nor skipped, nor is being scored at."""
        decided, begun = self.adapter(number).scored, self.state.in_flight
        return tuple(label for label in self.space.labels if label not in decided and Score(number, label) not in begun)

    # What is expected

    @cached_property
    def best(self) -> NDArray[Any]:
        """The best complete signed value at each point, [points]; -inf where there is none."""
        rows = [
            [self.space.sign * o.values[self.plan.answers]
             if (o := a.scored.get(label)) and o.state == "COMPLETE" and self._holds(label, o.values) else -math.inf
             for label in self.space.labels]
            for a in self.state.adapters
        ]
        table = np.array(rows, float).reshape(-1, len(self.space.labels))
        return np.asarray(table.max(axis=0, initial=-math.inf))

    def _holds(self, label: str, values: Any) -> bool:
        """Whether a trial meets the limits other than the one on answers."""
        known = {**self.plan.points[label], **values}
        return all(c.holds(known[c.objective]) for c in self.plan.constraints
                   if c.objective != self.plan.answers and c.objective in known)

    @cached_property
    def now(self) -> float:
        """The front's hypervolume."""
        return float(self.space.of(self.best))

    @cached_property
    def needed(self) -> NDArray[Any]:
        """What a pair has to exceed to matter at each point, [points]: the limit, or what costs no more and is as good.

        While nothing meets the limits the nearest miss still counts, so the limit alone rules nothing out.
        """
        beaten = self.space.beaten(self.best)
        return np.maximum(beaten, self.space.floor) if self.now > 0 else beaten

    def forecast(self, number: int | None, only: str | None = None) -> Forecast:
        """Of an adapter's points that are not decided yet; None is an adapter to be proposed. NaN: not to be had."""
        found = self.forecasts.new() if number is None else self.forecasts.of(number)
        if number is None:
            return found
        wanted = {only} if only else set(self.open_points(number))
        have = np.array([label in wanted for label in self.space.labels])
        return replace(found, mean=np.where(have, found.mean, np.nan))

    def gain(self, number: int | None, only: str | None = None) -> float:
        """Hypervolume that scoring an adapter at its open points, or at ``only`` one, is expected to add."""
        found = self.forecast(number, only)
        return self.space.gain(self.best, found.mean, found.sd)

    def hope(self, number: int | None, only: str | None = None) -> float:
        """How far a pair may come towards what is needed where no gain can be expected."""
        found = self.forecast(number, only)
        reach = found.mean + found.sd - np.maximum(self.needed, self.space.floor)
        reach = np.where(self.space.allowed & ~np.isnan(reach), reach, -np.inf)
        return float(reach.max(initial=-np.inf))

    def chances(self, number: int) -> NDArray[Any]:
        """For each point whether an adapter may still matter there."""
        found = self.forecast(number)
        reach = np.minimum(np.where(np.isnan(found.mean), -np.inf, found.mean + SURE * found.sd), self.space.ceiling)
        return np.asarray(self.space.allowed & (reach > self.needed))

    # What it takes

    def step_s(self, number: int | None, otherwise: Costs = _GUESS) -> float:
        """Seconds of a training step, of as many as train together: of this adapter's own so far, or this run's."""
        own = step_seconds([self.adapter(number).rungs]) if number is not None else None
        return self.plan.width * own if own is not None else _first(self.plan.costs.step, otherwise.step)

    def score_s(self, label: str, otherwise: Costs = _GUESS) -> float:
        known = self.plan.costs.score or otherwise.score
        return known.get(label, max(known.values(), default=0.0))

    def _first_s(self, number: int) -> float:
        """What comes before an adapter's first score."""
        return 0.0 if self.adapter(number).scored else self.plan.costs.first

    def judge_s(self, otherwise: Costs = _GUESS) -> float:
        return _first(self.plan.costs.judge, otherwise.judge)

    def train_s(self, number: int, rung: int, otherwise: Costs = _GUESS, judged: bool = True) -> float:
        """To train an adapter from where it is to a rung, and judge it at each on the way unless not ``judged``."""
        adapter, rungs = self.adapter(number), self.plan.rungs
        steps = rungs[rung] * adapter.steps - (adapter.rungs[-1].step if adapter.rungs else 0)
        stops = sum(i < len(rungs) - 1 for i in range(len(adapter.rungs), rung + 1)) if judged else 0
        return max(0.0, steps) * self.step_s(number, otherwise) + stops * self.judge_s(otherwise)

    @cached_property
    def spent_s(self) -> float:
        """What all adapters took so far: training, judging and scoring."""
        return sum(
            (a.rungs[-1].step * self.step_s(a.number) if a.rungs else 0.0)
            + sum(self.judge_s() for r in a.rungs if judged(r))
            + sum(self.score_s(label) for label, o in a.scored.items() if o.state != "SKIPPED")
            for a in self.state.adapters
        )

    def new_s(self) -> float:
        """A new adapter's cost, to its end."""
        steps = _first(self.plan.costs.steps, _GUESS.steps) * self.step_s(None)
        first, last = self.plan.rungs[0], len(self.plan.rungs) - 1
        if not last:
            return steps + self.all_scores_s()
        rest = (1 - first) * steps + (last - 1) * self.judge_s() + self.all_scores_s()
        return first * steps / self.plan.width + self.judge_s() + GOES_ON * rest

    def all_scores_s(self) -> float:
        return sum(self.score_s(label) for label in self.space.labels)

    @property
    def left_s(self) -> float:
        budget = self.plan.budget.time_s
        return math.inf if budget is None else budget - self.plan.costs.reserve - self.state.spent.seconds

    def fits(self, work: Work) -> bool:
        """Whether a piece of work, and what it needs to become a result, ends within the time that is left.

        What this run has not told yet holds nothing back: the first adapter tells it.
        """
        if math.isinf(self.left_s):
            return True
        shortest = min((self.score_s(label, _NOTHING) for label in self.space.labels), default=0.0)
        last = len(self.plan.rungs) - 1
        match work:
            case Score(number, label):
                # What it makes may be chosen, and take longer to certify than what is chosen now.
                more = max(0.0, self.plan.costs.reserves.get(label, 0.0) - self.plan.costs.reserve)
                return self._first_s(number) + self.score_s(label, _NOTHING) + more <= self.left_s
            case Train(numbers, rung):
                judged = rung < last  # one that goes to its end at once is judged nowhere between
                # They train together, and are judged one after the other.
                others = (len(numbers) - 1) * self.judge_s(_NOTHING) * judged
                longest = max(self.train_s(n, last, _NOTHING, judged) + self._first_s(n) for n in numbers)
                return longest + others + shortest <= self.left_s
            case Propose():
                steps = _first(self.plan.costs.steps, 0.0) * self.step_s(None, _NOTHING)
                return steps + last * self.judge_s(_NOTHING) + self.plan.costs.first + shortest <= self.left_s
            case _:
                return True

    def fresh(self) -> int:
        """How many new adapters may be proposed now."""
        budget = self.plan.budget.adapters
        left = math.inf if budget is None else budget - self.state.spent.adapters
        return 0 if self.state.exhausted else int(min(self.plan.width, left))


def _first(known: float | None, otherwise: float | None) -> float:
    return known if known is not None else float(otherwise or 0.0)
