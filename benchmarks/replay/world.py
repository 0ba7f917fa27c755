"""The table as a world: work costs the table's seconds and gives the table's answers; a log keeps what was scored
when."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autotune.constraints import Constraint
from autotune.pareto import Direction
from autotune.search.volume import Array, Volume, volume
from benchmarks.replay.table import PLAIN, Adapter, Table

OBJECTIVES: tuple[tuple[str, Direction], ...] = (
    ("accuracy", "maximize"), ("latency_ms.p50", "minimize"), ("size_mb", "minimize"))


@dataclass(frozen=True)
class Judgement:
    """What a search is told at a rung: right answers by deploy point's label, and the loss at full precision."""

    right: Mapping[str, int]
    rows: int
    loss: float | None


#: The deploy point of which what is judged without any rounding tells.
FP16 = "fp16"


class Enough(Exception):
    """The share that a replay was to run to is reached."""


@dataclass
class World:
    """``judge_rows``: so many validation rows are judged at a rung, evenly spread (the table's seconds and losses are
    those of 64). ``enough`` sees the log after each
    scored pair, and ends the replay by being true: then `score` raises `Enough`."""

    table: Table
    limits: Sequence[Constraint]
    judge_rows: int = 64
    enough: Callable[[tuple[float, int, str]], bool] | None = None
    seconds: float = 0.0
    trials: int = 0
    log: list[tuple[float, int, str]] = field(default_factory=list)

    def probe(self) -> None:
        """Every deploy point on the base model."""
        self.seconds += self.table.probes_s

    def allowed(self) -> list[str]:
        """The labels of the points that meet the limits on what is known of them before any training."""
        return [p.label for p in self.table.points
                if all(c.holds(p.values[c.objective]) for c in self.limits if c.objective in p.values)]

    def train(self, number: int, after: float, to: float) -> float:
        """From a fraction of an adapter's steps to another; the seconds of it."""
        adapter = self.table.adapters[number]
        took = sum(r.seconds for r, f in zip(adapter.rungs, self.table.rungs, strict=False) if after < f <= to)
        self.seconds += took
        return took

    def judged_labels(self) -> tuple[str, ...]:
        """The deploy points that adapters are judged at beside full precision, as a study chooses them."""
        allowed = self.allowed()
        sizes = {p.label: p.values["size_mb"] for p in self.table.points if p.label in allowed}
        return () if FP16 in allowed else (max(sizes, key=lambda label: sizes[label]),)

    def judge(self, number: int, fraction: float, labels: Collection[str]) -> Judgement:
        """At full precision, and at those of the deploy points ``labels`` whose rounding the table has at this rung."""
        reached = self.table.adapters[number].rungs[self.table.rungs.index(fraction)]
        total = max((len(j.right) for j in reached.judged.values()), default=0)
        rows = spread(total, self.judge_rows)
        wanted = {p.label: p.rounding for p in self.table.points if p.rounding in reached.judged and p.label in labels}
        if PLAIN in reached.judged:  # fp16 rounds nothing that would move an answer
            wanted |= {p.label: PLAIN for p in self.table.points if p.label == FP16}
        asked = set(wanted.values()) - {PLAIN}
        self.seconds += self.table.plain_s + sum(reached.judged[r].seconds for r in asked)
        right = {k: int(reached.judged[r].right[rows].sum()) for k, r in wanted.items()}
        return Judgement(right, self.judge_rows, reached.valid_loss)

    def score(self, number: int, label: str, extra_s: float = 0.0) -> dict[str, float] | None:
        """Values by objective on validation rows, or None where this pair had failed."""
        final = self.table.adapters[number].final.get(label)
        self.trials += 1
        if final is None:
            return None
        self.seconds += final.seconds + extra_s
        self.log.append((self.seconds, number, label))
        if self.enough and self.enough(self.log[-1]):
            raise Enough
        point = next(p for p in self.table.points if p.label == label)
        return {"accuracy": float(final.valid.mean()), **point.values}

    def seconds_of(self, adapter: Adapter, label: str) -> float:
        return adapter.final[label].seconds if label in adapter.final else 0.0


def spread(rows: int, count: int) -> Array:
    """``count`` of ``rows`` indices, evenly spread."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).round().astype(int))


class Yardstick:
    """The share of the table's feasible hypervolume that scored pairs have.

    Pairs are chosen by validation accuracy, as a study chooses its front, and valued by test accuracy. 1 is what
    choosing from the whole table is worth. The reference point is the corner of the limits.
    """

    def __init__(self, table: Table, limits: Sequence[Constraint]) -> None:
        points = {p.label: p.values for p in table.points}
        self._space: Volume = volume(points, OBJECTIVES, limits, "accuracy")
        self._table = table
        everything = self.tally()
        for adapter in table.adapters:
            for label in adapter.final:
                everything.add(adapter.number, label)
        self.whole = everything.volume()
        if self.whole <= 0:
            raise ValueError(f"limits: {', '.join(c.expr for c in limits)} found, which no pair of the table meets")

    def tally(self) -> Tally:
        return Tally(self._table, self._space)

    def shares(self, log: Sequence[tuple[float, int, str]]) -> list[tuple[float, float]]:
        """(seconds, share) after each scored pair."""
        tally, found = self.tally(), []
        for seconds, number, label in log:
            tally.add(number, label)
            found.append((seconds, tally.volume() / self.whole))
        return found


class Tally:
    """What pairs scored so far are worth."""

    def __init__(self, table: Table, space: Volume) -> None:
        self._table, self._space = table, space
        self._valid = np.full(len(space.labels), -np.inf)
        self._test = self._valid.copy()

    def add(self, number: int, label: str) -> None:
        """At one point the pair that is best on validation rows is the one to be chosen; the first one of equals."""
        final, at = self._table.adapters[number].final[label], self._space.labels.index(label)
        if final.valid.mean() > self._valid[at]:
            self._valid[at], self._test[at] = final.valid.mean(), final.test.mean()

    def volume(self) -> float:
        """Only the front counts: a pair that one as cheap beats on validation rows would not be chosen."""
        others = self._space.cheaper & ~np.eye(len(self._valid), dtype=bool)
        beaten = np.where(others, self._valid[None, :], -np.inf).max(axis=1)
        chosen = (self._valid >= self._space.floor) & (self._valid > beaten)
        return float(self._space.of(np.where(chosen, self._test, -np.inf)))


def cost_to(shares: Sequence[tuple[float, float]], target: float) -> float:
    """The seconds after which the share first is at least ``target``; infinite where it never is."""
    return next((seconds for seconds, share in shares if share >= target), float("inf"))
