"""The searches that autotune's is compared with: Optuna's samplers at full fidelity, and MO-ASHA."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from autotune.pareto import Direction
from autotune.search.asking import Known, ask, given
from autotune.search.schedule import ask_seed, first_points, proposal_values
from benchmarks.replay.nearest import Nearest, coordinates, space_of
from benchmarks.replay.table import Adapter
from benchmarks.replay.world import OBJECTIVES, Judgement, World
from search_spaces.adapter import AdapterParams

Sampler = Literal["tpe", "nsga2", "random"]
_PROPOSALS: tuple[Direction, ...] = ("maximize", "maximize")


@dataclass(frozen=True)
class FanOut:
    """Each adapter is trained to the end and scored at every deploy point that its known values do not rule out.

    TPE is asked as autotune asks it, told of each adapter at its largest and at its smallest artifact, with violations.
    ``experts``: autotune's first points come first, which makes it what autotune was before it had fidelities.
    """

    sampler: Sampler
    experts: bool = False

    def run(self, world: World, seed: int) -> None:
        world.probe()
        space = space_of(world.table)
        nearest, experts = Nearest(world.table, space), first_points(space) if self.experts else []
        study = optuna.create_study(directions=_PROPOSALS, sampler=_sampler(self.sampler, seed))
        free, known = {a.number for a in world.table.adapters}, list[Known]()
        taken = set[AdapterParams]()
        while free:
            trial = None
            if self.sampler == "tpe":
                fixed = experts[len(taken)] if len(taken) < len(experts) else None
                asked = ask(space, known, taken, _PROPOSALS, seed, fixed)
                assert asked is not None
                params = dict(asked.params)
            else:
                trial = study.ask()
                space.suggest(trial)
                params = trial.params
            adapter = nearest(params, free)
            free.discard(adapter.number)
            taken.add(adapter.params)
            told = _everywhere(world, adapter)
            if told is None:
                if trial:
                    study.tell(trial, state=TrialState.FAIL)
                continue
            values, violations = told
            known.append(Known(coordinates(adapter.params), values, violations))
            if trial:
                for expr, over in violations.items():
                    trial.set_constraint(expr, over)
                study.tell(trial, list(values))


def _everywhere(world: World, adapter: Adapter) -> tuple[tuple[float, ...], dict[str, float]] | None:
    """Train, score everywhere; what the sampler is told, or None where nothing came of it."""
    world.train(adapter.number, 0.0, 1.0)
    points = sorted(set(adapter.final) & set(world.allowed()), key=lambda label: world.seconds_of(adapter, label))
    scored = {label: values for label in points if (values := world.score(adapter.number, label))}
    if not scored:
        return None
    best = min(scored.values(), key=lambda v: sum(max(0.0, c.violation(v[c.objective])) for c in world.limits))
    violations = {c.expr: c.violation(best[c.objective]) for c in world.limits}
    return tuple(proposal_values(scored, ["accuracy"])), violations  # type: ignore[arg-type]


@dataclass(frozen=True)
class OneByOne:
    """A trial is an adapter and one deploy point; each trains its adapter, builds, asks and times its artifact."""

    sampler: Sampler

    def run(self, world: World, seed: int) -> None:
        table, space = world.table, space_of(world.table)
        nearest = Nearest(table, space)
        labels = [p.label for p in table.points]
        probe_s = {p.label: p.probe_s for p in table.points}
        study = optuna.create_study(directions=[d for _, d in OBJECTIVES], sampler=_sampler(self.sampler, seed))
        free = {(a.number, label) for a in table.adapters for label in labels}
        while free:
            trial = study.ask()
            space.suggest(trial)
            wanted = trial.suggest_categorical("point", labels)
            # The nearest adapter that is free at the wanted point; another point once that one is used up.
            label = wanted if any(at == wanted for _, at in free) else min(at for _, at in free)
            adapter = nearest(trial.params, {n for n, at in free if at == label})
            free.discard((adapter.number, label))
            world.train(adapter.number, 0.0, 1.0)
            world.seconds += probe_s[label]
            values = world.score(adapter.number, label) if adapter.failed is None else None
            if values is None:
                study.tell(trial, state=TrialState.FAIL)
                continue
            numbers = [values[key] for key, _ in OBJECTIVES]
            violations = {c.expr: c.violation(values[c.objective]) for c in world.limits}
            if self.sampler != "tpe":
                for expr, over in violations.items():
                    trial.set_constraint(expr, over)
                study.tell(trial, numbers)
                continue
            study.tell(trial, state=TrialState.FAIL)  # TPE is told of the adapter that stood for the proposal
            point = given(space, coordinates(adapter.params))
            assert point is not None
            study.add_trial(create_trial(
                values=numbers, params={**point.params, "point": label}, constraints=violations,
                distributions={**point.distributions, "point": CategoricalDistribution(labels)}))


@dataclass(frozen=True)
class MoAsha:
    """MO-ASHA (Schmucker et al. 2021, arXiv 2106.12639) with random sampling: of each rung the best third goes on, by
    non-dominated sorting of accuracy as judged and deploy costs over all pairs, an adapter being as good as its best
    pair.
    """

    rungs: tuple[float, ...] = (0.2, 0.4, 1.0)
    reduction: int = 3

    def run(self, world: World, seed: int) -> None:
        world.probe()
        order = [a.number for a in world.table.adapters]
        random.Random(seed).shuffle(order)
        reached: list[dict[int, Judgement | None]] = [{} for _ in self.rungs]
        gone_on: list[set[int]] = [set() for _ in self.rungs]
        while True:
            number, rung = self._next(world, reached, gone_on, order)
            if number is None:
                return
            world.train(number, self.rungs[rung - 1] if rung else 0.0, self.rungs[rung])
            if rung:
                gone_on[rung - 1].add(number)
            if world.table.adapters[number].failed is not None:
                continue
            if rung < len(self.rungs) - 1:
                reached[rung][number] = world.judge(
                    number, self.rungs[rung], world.judged_labels())
            else:
                for label in world.allowed():
                    world.score(number, label)

    def _next(
        self, world: World, reached: list[dict[int, Judgement | None]], gone_on: list[set[int]], order: list[int]
    ) -> tuple[int | None, int]:
        for rung in reversed(range(len(self.rungs) - 1)):
            # With nothing left to begin, the rest goes on in the order of the ranking.
            count = len(reached[rung]) // self.reduction if order else len(reached[rung])
            best = [n for n in self._ranked(world, reached[rung])[:count] if n not in gone_on[rung]]
            if best:
                return best[0], rung + 1
        return (order.pop(0), 0) if order else (None, 0)

    def _ranked(self, world: World, judged: dict[int, Judgement | None]) -> list[int]:
        allowed = world.allowed()
        # Where no answers were judged, the loss ranks.
        pairs = [
            (n, (-j.right[p.label] / j.rows if j.right else _loss(j), p.values["latency_ms.p50"], p.size_mb))
            for n, j in judged.items() if j for p in world.table.points
            if p.label in allowed and (p.label in j.right or not j.right)
        ]
        rank = dict.fromkeys(judged, np.inf)
        if pairs:
            table = np.array([mine for _, mine in pairs])
            no_worse = (table[:, None] <= table[None, :]).all(axis=2)
            better = (table[:, None] < table[None, :]).any(axis=2)
            for (number, _), over in zip(pairs, (no_worse & better).sum(axis=0), strict=True):
                rank[number] = min(rank[number], over)
        top = {n: max((-v[0] for m, v in pairs if m == n), default=-np.inf) for n in judged}
        return sorted(judged, key=lambda n: (rank[n], -top[n], n))


def _loss(judgement: Judgement) -> float:
    return judgement.loss if judgement.loss is not None else math.inf


def _sampler(name: Sampler, seed: int) -> BaseSampler:
    at = ask_seed(seed, 0)
    if name == "tpe":
        return TPESampler(multivariate=True, group=True, seed=at)
    return NSGAIISampler(population_size=10, seed=at) if name == "nsga2" else RandomSampler(seed=at)


