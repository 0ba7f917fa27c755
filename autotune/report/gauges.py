"""A measured number held against its limit, with where everything lies on a line from end to end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotune.constraints import Op
from autotune.finished import FinishedRun, FinishedTrial, measurement, unit_of
from autotune.stats import Measurement
from objectives.base import is_answers, source_of

_MARGIN = 0.06


@dataclass(frozen=True)
class Line:
    """Places in percent of a line's length. ``allowed`` is the part on which the limit holds, ``base`` the untrained
    base; ``open_low`` and ``open_high`` tell of ends of the interval that are not known, and lie at the line's."""

    value: float
    low: float
    high: float
    open_low: bool
    open_high: bool
    allowed: tuple[float, float] | None
    base: float | None


@dataclass(frozen=True)
class Gauge:
    """``limit`` is the constraint as it was written, empty for an objective without one; ``verdict`` is then empty
    too. ``remark`` says why a limit is not settled and what would settle it."""

    name: str
    measured: Measurement
    limit: str
    verdict: str
    remark: str
    base: Measurement | None
    line: Line | None


def of_trial(run: FinishedRun, trial: FinishedTrial) -> list[Gauge]:
    """The limits and then the other objectives, as the search measured them on one trial."""
    return _of_search(run, trial.values, trial.verdicts)


def of_point(run: FinishedRun, point: Mapping[str, Any]) -> list[Gauge]:
    """As ``of_trial`` for a deploy point that was measured on base weights alone."""
    return _of_search(run, run.measured(point.get("values", {})), {})


def of_look(run: FinishedRun, look: Mapping[str, Any]) -> list[Gauge]:
    """As a certificate judged a finalist; empty where it could not be measured."""
    by_expr = {c.expr: c for c in run.constraints}
    gauges = []
    for found in look["constraints"]:
        limit = by_expr.get(found["expr"])
        measured = measurement(found, found["unit"])
        base = _base(run, limit.objective) if limit and not limit.relative else None
        gauges.append(_gauge(found["compared"], measured, found["expr"], found["verdict"], remark(found), base,
                             limit.op if limit else None, found["bound"]))
    judged = {c.objective for c in run.constraints}
    return gauges + [
        _gauge(key, measurement(look["values"][key], unit_of(key, run.units)), base=_base(run, key))
        for key, _ in run.objectives if key not in judged and key in look["values"]
    ]


def remark(found: Mapping[str, Any]) -> str:
    """What would settle a constraint of a certificate; empty where it is settled."""
    counted = "requests" if source_of(found["compared"].partition(" ")[0]) == "latency" else "rows"
    if found["verdict"] == "PASS":
        return ""
    if found["verdict"] == "FAIL":
        return "The whole interval lies on the wrong side of the limit."
    if found["doubt"]:
        return f"Not settled, because {found['doubt']}. Measure again when the machine is quiet."
    if found["n_to_settle"] is None:
        return "The interval lies on both sides of the limit, and no reasonable number of measurements would settle it."
    more = found["n_to_settle"] - found["n"]
    return f"About {found['n_to_settle']} {counted} would settle it, {more} more than there were."


def line(measured: Measurement, op: Op | None = None, bound: float | None = None, base: float | None = None) -> Line:
    """Everything that is known of a number on one scale, with a margin at both ends."""
    known = [v for v in (measured.value, measured.low, measured.high, bound, base) if v is not None]
    low, high = min(known), max(known)
    margin = (high - low) * _MARGIN or abs(high) * _MARGIN or 1.0
    start, length = low - margin, high - low + 2 * margin

    def place(value: float) -> float:
        return round(100 * (value - start) / length, 2)

    allowed = None
    if op is not None and bound is not None:
        allowed = (place(bound), 100.0) if op == ">=" else (0.0, place(bound))
    reading = measured.n == 1 and measured.low is None  # a single reading has no interval, not an open one
    ends = [measured.value if reading else end for end in (measured.low, measured.high)]
    return Line(
        value=place(measured.value),
        low=0.0 if ends[0] is None else place(ends[0]), high=100.0 if ends[1] is None else place(ends[1]),
        open_low=ends[0] is None, open_high=ends[1] is None,
        allowed=allowed, base=None if base is None else place(base),
    )


def _of_search(run: FinishedRun, values: Mapping[str, Measurement], verdicts: Mapping[str, str]) -> list[Gauge]:
    gauges = []
    for limit in run.constraints:
        if limit.objective not in values:
            continue
        known = not limit.relative or limit.baseline is not None
        verdict = verdicts.get(limit.expr, "")
        gauges.append(_gauge(
            limit.objective, values[limit.objective], limit.expr, verdict, _screened(verdict),
            _base(run, limit.objective), limit.op if known else None, limit.bound if known else None))
    judged = {c.objective for c in run.constraints}
    return gauges + [_gauge(key, values[key], base=_base(run, key))
                     for key, _ in run.objectives if key not in judged and key in values]


def _screened(verdict: str) -> str:
    return "The interval does not settle it; the value itself is what the search went by." * (verdict == "INCONCLUSIVE")


def _gauge(
    name: str, measured: Measurement, limit: str = "", verdict: str = "", remark: str = "",
    base: Measurement | None = None, op: Op | None = None, bound: float | None = None,
) -> Gauge:
    drawn = line(measured, op, bound, base.value if base else None) if bound is not None or base else None
    return Gauge(name, measured, limit, verdict, remark, base, drawn)


def _base(run: FinishedRun, key: str) -> Measurement | None:
    """The untrained base's value, where training is what changes it."""
    baseline = run.document.get("baseline")
    found = baseline["values"].get(key) if baseline and is_answers(key) else None
    return measurement(found, unit_of(key, run.units)) if found else None
