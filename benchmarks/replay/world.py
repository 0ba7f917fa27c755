"""The table as a world: work costs the table's seconds and gives the table's answers; a log keeps what was scored
when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autotune.constraints import Constraint
from autotune.pareto import Direction
from autotune.search.volume import Array, Volume, volume
from benchmarks.replay.table import Adapter, Table

OBJECTIVES: tuple[tuple[str, Direction], ...] = (
    ("accuracy", "maximize"), ("latency_ms.p50", "minimize"), ("size_mb", "minimize"))


@dataclass(frozen=True)
class Judgement:
    """What a search is told at a rung: right answers by deploy point's label."""

    right: Mapping[str, int]
    rows: int


@dataclass
class World:
    """``judge_rows``: so many validation rows are judged at a rung, evenly spread."""

    table: Table
    limits: Sequence[Constraint]
    judge_rows: int = 64
    seconds: float = 0.0
    trials: int = 0
    log: list[tuple[float, int, str]] = field(default_factory=list)

    def probe(self) -> None:
        """Every deploy point on the base model."""
        self.seconds += self.table.probes_s

    def train(self, number: int, after: float, to: float) -> float:
        """From a fraction of an adapter's steps to another; the seconds of it."""
        adapter = self.table.adapters[number]
        took = sum(r.seconds for r, f in zip(adapter.rungs, self.table.rungs, strict=False) if after < f <= to)
        self.seconds += took
        return took

    def judge(self, number: int, fraction: float) -> Judgement:
        reached = self.table.adapters[number].rungs[self.table.rungs.index(fraction)]
        some = next(iter(reached.judged.values()))
        rows = spread(len(some.right), self.judge_rows)
        wanted = {p.label: p.rounding for p in self.table.points if p.rounding in reached.judged}
        # The same share of the seconds for every row: asking them, not rounding, is most of it.
        self.seconds += sum(reached.judged[r].seconds for r in set(wanted.values())) * len(rows) / 64
        return Judgement({k: int(reached.judged[r].right[rows].sum()) for k, r in wanted.items()}, len(rows))

    def score(self, number: int, label: str, extra_s: float = 0.0) -> dict[str, float] | None:
        """Values by objective on validation rows, or None where this pair had failed."""
        final = self.table.adapters[number].final.get(label)
        self.trials += 1
        if final is None:
            return None
        self.seconds += final.seconds + extra_s
        self.log.append((self.seconds, number, label))
        point = next(p for p in self.table.points if p.label == label)
        return {"accuracy": float(final.valid.mean()), **point.values}

    def seconds_of(self, adapter: Adapter, label: str) -> float:
        return adapter.final[label].seconds if label in adapter.final else 0.0


def spread(rows: int, count: int) -> Array:
    """``count`` of ``rows`` indices, evenly spread."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).round().astype(int))


class Yardstick:
    """The share of the table's feasible hypervolume that a set of scored pairs has.

    Pairs are chosen by validation accuracy, as a study chooses its front, and valued by test accuracy. 1 is what
    choosing from the whole table is worth. The reference point is the corner of the limits.
    """

    def __init__(self, table: Table, limits: Sequence[Constraint]) -> None:
        points = {p.label: p.values for p in table.points}
        self._space: Volume = volume(points, OBJECTIVES, limits, "accuracy")
        self._table = table
        everything = [(a.number, label) for a in table.adapters for label in a.final]
        self.whole = self._volume(everything)
        if self.whole <= 0:
            raise ValueError(f"limits: {', '.join(c.expr for c in limits)} found, which no pair of the table meets")

    def shares(self, log: Sequence[tuple[float, int, str]]) -> list[tuple[float, float]]:
        """(seconds, share) after each scored pair."""
        labels = self._space.labels
        valid, test = np.full(len(labels), -np.inf), np.full(len(labels), -np.inf)
        found = []
        for seconds, number, label in log:
            self._take(valid, test, number, label)
            found.append((seconds, self._of(valid, test) / self.whole))
        return found

    def _volume(self, pairs: Sequence[tuple[int, str]]) -> float:
        valid, test = np.full(len(self._space.labels), -np.inf), np.full(len(self._space.labels), -np.inf)
        for number, label in pairs:
            self._take(valid, test, number, label)
        return self._of(valid, test)

    def _take(self, valid: Array, test: Array, number: int, label: str) -> None:
        """At one point the pair that is best on validation rows is the one to be chosen; the first one of equals."""
        final, at = self._table.adapters[number].final[label], self._space.labels.index(label)
        if final.valid.mean() > valid[at]:
            valid[at], test[at] = final.valid.mean(), final.test.mean()

    def _of(self, valid: Array, test: Array) -> float:
        """Only the front counts: a pair that one as cheap beats on validation rows would not be chosen."""
        beaten = np.where(self._space.cheaper & ~np.eye(len(valid), dtype=bool), valid[None, :], -np.inf).max(axis=1)
        chosen = (valid >= self._space.floor) & (valid > beaten)
        return float(self._space.of(np.where(chosen, test, -np.inf)))


def cost_to(shares: Sequence[tuple[float, float]], target: float) -> float:
    """The seconds after which the share first is at least ``target``; infinite where it never is."""
    return next((seconds for seconds, share in shares if share >= target), float("inf"))
