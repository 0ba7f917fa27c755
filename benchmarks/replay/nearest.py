"""The space that a table's adapters fill, and the adapter of the table that stands for a proposal."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from benchmarks.replay.table import Adapter, Table
from search_spaces.adapter import AdapterParams
from search_spaces.space import Choice, Dimension, Range, Space, Value

_LOG = ("rank", "scale", "rate_scale")


def coordinates(params: AdapterParams) -> dict[str, Value]:
    """An adapter in the dimensions that a search has: learning rate × scale is one of them."""
    return {"rank": params.rank, "scale": params.scale, "rate_scale": params.learning_rate * params.scale,
            "targets": params.targets, "dropout": params.dropout, "epochs": params.epochs,
            "batch_size": params.batch_size}


def space_of(table: Table) -> Space:
    """The smallest space that holds all adapters of a table."""
    found = [coordinates(a.params) for a in table.adapters]
    dimensions: dict[str, Dimension] = {}
    for name in found[0]:
        values = sorted({f[name] for f in found}, key=str)
        if name in _LOG:
            numbers = [float(v) for v in values]
            dimensions[name] = Range(min(numbers), max(numbers), log=True, integer=name == "rank")
        else:
            dimensions[name] = Choice(tuple(values))
    return Space(dimensions, ())


@dataclass(frozen=True)
class Nearest:
    """Distance: each number as a share of its range on a log axis, a word or another choice 0 or 1/2; squares are
    added."""

    table: Table
    space: Space

    def __call__(self, wanted: Mapping[str, Value], free: Collection[int]) -> Adapter:
        """The nearest of the adapters ``free`` by number, the lowest number of equals."""
        return min((self.table.adapters[n] for n in sorted(free)),
                   key=lambda a: self._distance(wanted, coordinates(a.params)))

    def _distance(self, a: Mapping[str, Value], b: Mapping[str, Value]) -> float:
        total = 0.0
        for name, dimension in self.space.adapter.items():
            if isinstance(dimension, Range):
                width = math.log(dimension.high / dimension.low) or 1.0
                total += (math.log(float(a[name]) / float(b[name])) / width) ** 2
            elif name in a:
                total += 0.25 * (a[name] != b[name])
        return total
