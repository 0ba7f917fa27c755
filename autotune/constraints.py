"""Constraint expressions: ``accuracy >= 0.78``, ``latency_ms.p95 <= 400``, ``accuracy >= 0.97 * baseline``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from autotune.stats import Measurement

Op = Literal[">=", "<="]
Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
_FORM = re.compile(r"^\s*(?P<key>[^\s<>=]+)\s*(?P<op><=|>=|=>|=<|==|<|>|=)\s*(?P<bound>\S.*?)\s*$")
_NUMBER = r"[^\s*+-]*[^\s*](?:e[+-]?\d+)?"
_RELATIVE = re.compile(rf"^(?:(?P<share>{_NUMBER})\s*\*\s*)?baseline(?:\s*(?P<sign>[+-])\s*(?P<offset>{_NUMBER}))?$")
ACCEPTED = ("OBJECTIVE >= BOUND or OBJECTIVE <= BOUND, BOUND a number or NUMBER * baseline, baseline + NUMBER or "
            "baseline - NUMBER, such as 'latency_ms.p95 <= 400' or 'accuracy >= 0.97 * baseline'")


@dataclass(frozen=True)
class Constraint:
    """An objective with a bound; ``objective`` is the key with its statistic.

    ``share`` is 0 for an absolute bound. For a relative one the bound is ``bound + share * baseline``, the baseline
    being the same objective's value on another model: ``resolved`` puts it in. ``baseline`` then keeps that value.
    """

    expr: str
    objective: str
    op: Op
    bound: float
    share: float = 0.0
    baseline: float | None = None

    @property
    def relative(self) -> bool:
        return bool(self.share)

    @property
    def offset(self) -> float:
        """The plain number in a relative bound: ``bound`` less the baseline's part."""
        return self.bound if self.baseline is None else self.bound - self.share * self.baseline

    def resolved(self, baseline: Mapping[str, float]) -> Constraint:
        """The constraint with the number that its bound comes to.

        Raises:
            KeyError: it is relative, and the objective was not measured on the baseline.
        """
        if not self.relative:
            return self
        value = baseline[self.objective]
        return replace(self, bound=self.offset + self.share * value, baseline=value)

    def violation(self, value: float) -> float:
        """Signed distance past the bound as a share of the bound; at most 0 where it holds.

        A bound of 0 has no share, so the plain distance stands in.
        """
        over = value - self.bound if self.op == "<=" else self.bound - value
        return over / abs(self.bound) if self.bound else over

    def margin(self, value: Measurement) -> float:
        """The violation of the interval's worse end, or of the value where that end is not known.

        What a sampler is told: a point that just holds its limit is not where to look for one that will be certified.
        """
        worst = value.high if self.op == "<=" else value.low
        return self.violation(value.value if worst is None else worst)

    def holds(self, value: float) -> bool:
        return self.violation(value) <= 0

    def verdict(self, low: float | None, high: float | None) -> Verdict:
        """The whole interval against the bound; an open end settles nothing on its side."""
        worst, best = (high, low) if self.op == "<=" else (low, high)
        if worst is not None and self.holds(worst):
            return "PASS"
        if best is not None and not self.holds(best):
            return "FAIL"
        return "INCONCLUSIVE"


def parse(expr: str) -> Constraint:
    """One expression, names unchecked.

    Raises:
        ValueError: not of the accepted form; the message says what was found.
    """
    match = _FORM.match(expr)
    if not match:
        raise ValueError(f"{expr!r} is no comparison of an objective with a number")
    op = match["op"]
    if op not in (">=", "<="):
        raise ValueError(f"{expr!r} compares with {op!r}")
    bound, share = _bound(expr, match["bound"])
    text = " ".join((match["key"], op, *match["bound"].split()))
    return Constraint(text, match["key"], op, bound, share)  # type: ignore[arg-type]


def resolve_all(constraints: Sequence[Constraint], baseline: Mapping[str, float]) -> tuple[Constraint, ...]:
    """Every constraint that has its number; relative ones whose baseline is not known yet are left out."""
    return tuple(c.resolved(baseline) for c in constraints if not c.relative or c.objective in baseline)


def total_violation(constraints: Sequence[Constraint], values: Mapping[str, float]) -> float:
    """Sum of the positive violations: 0 where all hold.

    Raises:
        KeyError: a constrained objective was not measured; a missing number never counts as met.
    """
    return sum(max(0.0, c.violation(values[c.objective])) for c in constraints)


def _bound(expr: str, text: str) -> tuple[float, float]:
    """(number, share of the baseline)."""
    match = _RELATIVE.match(text)
    if not match:
        return _number(expr, text), 0.0
    share = _number(expr, match["share"]) if match["share"] else 1.0
    if share <= 0:
        raise ValueError(f"{expr!r} takes {share:g} times the baseline, which is no limit")
    offset = _number(expr, match["offset"]) if match["offset"] else 0.0
    return (-offset if match["sign"] == "-" else offset), share


def _number(expr: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{expr!r} has the bound {text!r}, which is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"{expr!r} has no finite bound")
    return number
