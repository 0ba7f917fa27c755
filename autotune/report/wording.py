"""How numbers, units and lists are put into sentences, the same in every report."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from autotune.pareto import Direction, Miss
from autotune.stats import Measurement


def show(m: Measurement, interval: bool = False) -> str:
    """A value with its interval: ``0.812 [0.735, 0.870]``; an end that n is too small to tell is ``…``."""
    if not interval or m.low == m.high:
        return number(m.value)
    return f"{number(m.value)} [{number(m.low)}, {number(m.high)}]"


def number(value: float | None) -> str:
    """Three digits after the point below 10, none above; ``…`` for what is not known."""
    if value is None:
        return "…"
    if value and abs(value) < 0.001:
        return figure(value)
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"


def value(m: Measurement) -> str:
    """``228 ms``."""
    return f"{number(m.value)}{with_unit(m.unit)}"


def interval(m: Measurement) -> str:
    """What stands beside a value: ``[217, 239], n 140``."""
    if m.n == 1 and m.low == m.high:
        return "one reading" if m.low is None else "exact"
    return f"{ends(m)}, n {m.n}"


def ends(m: Measurement) -> str:
    """``[217, 239]``."""
    return f"[{number(m.low)}, {number(m.high)}]"


def percent(share: float) -> str:
    """``97.5 %``."""
    return f"{100 * share:.4g} %"


def measured(m: Measurement) -> str:
    """A number as it stands alone: ``253 [240, …] ms (n = 20)``."""
    return f"{show(m, True)}{with_unit(m.unit)} (n = {m.n})"


def join(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def with_unit(unit: str) -> str:
    """The unit as it follows a number."""
    return f" {unit}" if unit else ""


def axis_title(key: str, unit: str, direction: Direction) -> str:
    """``latency_ms.p50 (ms) · less is better``."""
    better = "more" if direction == "maximize" else "less"
    return f"{key}{f' ({unit})' if unit else ''} · {better} is better"


def missed_by(miss: Miss, unit: str) -> str:
    """``misses accuracy >= 0.8 by 0.031 (4%)``."""
    share = f" ({miss.shortfall / abs(miss.bound):.0%})" if miss.bound else ""
    return f"misses {miss.expr} by {figure(miss.shortfall)}{with_unit(unit)}{share}"


def figure(value: float) -> str:
    """Three digits that count, none after the point from 100 on."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def part(fraction: float) -> str:
    """``2/5``: a share of something, as people say it."""
    return str(Fraction(fraction).limit_denominator(100))
