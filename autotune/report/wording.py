"""How numbers, units and lists are put into sentences, the same in every report."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.pareto import Miss
from autotune.stats import Measurement


def show(m: Measurement, interval: bool = False) -> str:
    """A value with its interval: ``0.812 [0.735, 0.870]``; an end that n is too small to tell is ``…``."""
    if not interval or m.low == m.high:
        return number(m.value)
    return f"{number(m.value)} [{number(m.low)}, {number(m.high)}]"


def number(value: float | None) -> str:
    """A value or an end of its interval: three digits after the point below 10, none from there on."""
    if value is None:
        return "…"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"


def measured(m: Measurement) -> str:
    """A number as it stands alone: ``253 [240, …] ms (n = 20)``."""
    return f"{show(m, True)}{with_unit(m.unit)} (n = {m.n})"


def join(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def with_unit(unit: str) -> str:
    """The unit as it follows a number."""
    return f" {unit}" if unit else ""


def missed_by(miss: Miss, unit: str) -> str:
    """``misses accuracy >= 0.8 by 0.031 (4%)``."""
    share = f" ({miss.shortfall / abs(miss.bound):.0%})" if miss.bound else ""
    return f"misses {miss.expr} by {figure(miss.shortfall)}{with_unit(unit)}{share}"


def figure(value: float) -> str:
    """Three digits that count, none after the point from 100 on."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
