"""A table of measured adapters, as TABLE.md describes it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.adapter import AdapterParams

SCHEMA = "autotune/replay-table@1"
#: Judged without any rounding.
PLAIN = "fp32"
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    right: Flags
    loss: float
    seconds: float


@dataclass(frozen=True)
class Reached:
    step: int
    seconds: float
    valid_loss: float | None
    judged: Mapping[str, Judged]


@dataclass(frozen=True)
class Final:
    valid: Flags
    test: Flags
    assemble_s: float
    score_s: float

    @property
    def seconds(self) -> float:
        return self.assemble_s + self.score_s


@dataclass(frozen=True)
class Point:
    label: str
    latency_ms: Mapping[str, float]
    size_mb: float
    probe_s: float
    rounding: str

    @property
    def values(self) -> dict[str, float]:
        return {"latency_ms.p50": self.latency_ms["p50"], "latency_ms.p95": self.latency_ms["p95"], "size_mb":
        self.size_mb}


@dataclass(frozen=True, eq=False)
class Adapter:
    number: int
    params: AdapterParams
    steps: int
    failed: str | None
    rungs: tuple[Reached, ...]
    final: Mapping[str, Final]

    @cached_property
    def train_s(self) -> float:
        return sum(r.seconds for r in self.rungs)


@dataclass(frozen=True, eq=False)
class Table:
    rungs: tuple[float, ...]
    points: tuple[Point, ...]
    adapters: tuple[Adapter, ...]
    provenance: Mapping[str, Any]

    @property
    def judged_rungs(self) -> tuple[float, ...]:
        """The fractions at which every adapter was judged at every point, and the last one."""
        wanted = {p.rounding for p in self.points}
        full = [f for i, f in enumerate(self.rungs[:-1])
                if all(wanted <= set(a.rungs[i].judged) for a in self.adapters if len(a.rungs) > i)]
        return (*full, self.rungs[-1])

    @cached_property
    def plain_s(self) -> float:
        """Seconds to judge an adapter on 64 rows at full precision."""
        return next(j.seconds for a in self.adapters for r in a.rungs for name, j in r.judged.items() if name == PLAIN)

    @property
    def probes_s(self) -> float:
        return sum(p.probe_s for p in self.points)


def load(file: Path) -> Table:
    """Raises ValueError for another schema."""
    raw = file.read_bytes()
    return parse(json.loads(gzip.decompress(raw) if file.suffix == ".gz" else raw))


def parse(raw: Mapping[str, Any]) -> Table:
    """A table from its JSON document. Raises ValueError for another schema."""
    if raw.get("schema") != SCHEMA:
        raise ValueError(f"schema: {raw.get('schema')!r} found; accepted: {SCHEMA}")
    points = tuple(
        Point(p["label"], p["latency_ms"], p["size_mb"], p["probe_s"], p["rounding"]) for p in raw["points"])
    return Table(tuple(raw["rungs"]), points, tuple(_adapter(i, a) for i, a in enumerate(raw["adapters"])),
                 raw["provenance"])


def _adapter(number: int, raw: Mapping[str, Any]) -> Adapter:
    rungs = tuple(
        Reached(r["step"], r["seconds"], r["valid_loss"],
                {name: Judged(_flags(j["right"]), j["loss"], j["seconds"]) for name, j in r["judged"].items()})
        for r in raw["rungs"])
    final = {label: Final(_flags(f["valid"]), _flags(f["test"]), f["assemble_s"], f["score_s"])
             for label, f in raw["final"].items()}
    return Adapter(number, AdapterParams(**raw["params"]), raw["steps"], raw["failed"], rungs, final)


def _flags(text: str) -> Flags:
    return np.asarray(np.frombuffer(text.encode(), np.uint8) == ord("1"))
