"""What each constraint of a finalist is judged by: made of right and wrong rows, timings and readings. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from autotune import paired, stats
from autotune.certifying import power
from autotune.certifying.certificate import Tested
from autotune.constraints import Constraint
from autotune.stats import Measurement
from objectives import exact
from objectives.base import ROW_SHARES, name_of, parse_key
from objectives.latency import VALUES
from objectives.steadiness import Steadiness, borne_out


@dataclass(frozen=True)
class Measured:
    """One model measured anew.

    ``values`` by key; ``right`` tells for each test row whether it was answered right; ``timings`` are the requests'
    values by objective (``latency_ms``); ``ratios`` to the baseline's by key, from interleaved blocks. ``unsteady`` is
    None where the machine kept still while it was timed. ``strict`` are the values again, each interval with half the
    error: for what is told from the intervals of two models (`from_two`).
    """

    values: Mapping[str, Measurement]
    right: tuple[bool, ...]
    timings: Mapping[str, Sequence[float]]
    ratios: Mapping[str, Measurement]
    unsteady: Steadiness | None
    strict: Mapping[str, Measurement] = field(default_factory=dict)


def from_two(constraint: Constraint, ratios: Mapping[str, Measurement]) -> bool:
    """Whether a limit is told from two intervals, its model's own and the baseline's: neither paired by rows nor a
    ratio of timings by turns."""
    known = constraint.objective in ROW_SHARES or (not constraint.offset and constraint.objective in ratios)
    return constraint.relative and not known


def judged_by(constraint: Constraint, found: Measured, baseline: Measured | None, confidence: float) -> Tested:
    """The number that decides a constraint, with its interval at ``confidence``.

    Raises:
        KeyError: its objective was not measured; that never counts as met.
    """
    if constraint.relative:
        return _relative(constraint, found, baseline, confidence)
    value, bound = found.values[constraint.objective], constraint.bound
    if constraint.objective in ROW_SHARES:
        right, n = sum(found.right), len(found.right)
        return Tested(value, bound, constraint.objective, "test rows",
                      lambda: power.rows_to_settle(right, n, bound, constraint.op, confidence))
    if name_of(constraint.objective) in VALUES:
        return _timed(constraint, found, confidence)
    return Tested(value, bound, constraint.objective)


def _timed(constraint: Constraint, found: Measured, confidence: float) -> Tested:
    """A percentile holds its limit exactly where enough of the requests do."""
    objective, statistic = parse_key(constraint.objective)
    value = found.values[constraint.objective]
    low, high = borne_out(value.low, value.high, found.unsteady, objective.direction)
    value = replace(value, low=low, high=high)
    doubt = found.unsteady.sentence() if found.unsteady else None
    upper = constraint.op == "<="
    quantile = stats.quantile_of(statistic)
    if quantile is None:
        return Tested(value, constraint.bound, constraint.objective, doubt=doubt)
    samples = found.timings[objective.name]
    within = sum(s <= constraint.bound if upper else s >= constraint.bound for s in samples)
    share = quantile if upper else 1 - quantile
    return Tested(value, constraint.bound, constraint.objective, "requests",
                  lambda: power.samples_to_settle(within, len(samples), share, confidence), doubt)


def _relative(
    constraint: Constraint, found: Measured, baseline: Measured | None, confidence: float
) -> Tested:
    key, share, offset = constraint.objective, constraint.share, constraint.offset
    if baseline is None:
        raise KeyError(f"the baseline of {constraint.expr} was not measured")
    times = f"{share:g} × " if share != 1 else ""
    what = f"{key} less {times}the baseline's"
    if key in ROW_SHARES:
        difference = paired.difference_to_share(found.right, baseline.right, share, offset, confidence)
        return Tested(difference, offset, what, "test rows", lambda: power.rows_to_settle_paired(
            found.right, baseline.right, share, offset, confidence))
    if not from_two(constraint, found.ratios):
        # Blocks by turns drift together; what other processes took, they may have taken from one of the two.
        disturbed = found.unsteady if found.unsteady and found.unsteady.state == "disturbed" else None
        return _in_doubt(Tested(found.ratios[key], share, f"{key} as a share of the baseline's"), disturbed)
    mine, theirs = found.strict[key], baseline.strict[key]
    timed = name_of(key) in VALUES
    unsteady = (found.unsteady or baseline.unsteady) if timed else None
    return _in_doubt(Tested(_difference(mine, theirs, share), offset, what), unsteady)


def _in_doubt(about: Tested, unsteady: Steadiness | None) -> Tested:
    if unsteady is None:
        return about
    return replace(about, measured=replace(about.measured, low=None, high=None), doubt=unsteady.sentence())


def _difference(mine: Measurement, theirs: Measurement, share: float) -> Measurement:
    """mine - share · theirs from both intervals: opposite ends, which is wider than need be and never too narrow,
    as each interval holds with half of the allowed error (Bonferroni's inequality)."""

    def less(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a - share * b

    return Measurement(mine.value - share * theirs.value, less(mine.low, theirs.high), less(mine.high, theirs.low),
                       min(mine.n, theirs.n), mine.unit)


def requests_needed(keys: Sequence[str], confidence: float) -> int:
    """Requests to time so that each key's percentile has both ends (`exact.requests_needed`)."""
    timed = (key for key in keys if name_of(key) in VALUES)
    return exact.requests_needed((stats.quantile_of(parse_key(key)[1]) for key in timed), confidence)
