"""Constraint expressions: ``accuracy >= 0.78``, ``latency_ms.p95 <= 400``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Op = Literal[">=", "<="]
_FORM = re.compile(r"^\s*(?P<key>[^\s<>=]+)\s*(?P<op><=|>=|<|>|==|=)\s*(?P<bound>\S+)\s*$")
ACCEPTED = "OBJECTIVE >= NUMBER or OBJECTIVE <= NUMBER, such as 'latency_ms.p95 <= 400'"


@dataclass(frozen=True)
class Constraint:
    """An objective with a bound; ``objective`` is the key with its statistic."""

    expr: str
    objective: str
    op: Op
    bound: float

    def violation(self, value: float) -> float:
        """Signed distance past the bound as a share of the bound; at most 0 where it holds.

        A bound of 0 has no share, so the plain distance stands in.
        """
        over = value - self.bound if self.op == "<=" else self.bound - value
        return over / abs(self.bound) if self.bound else over

    def holds(self, value: float) -> bool:
        return self.violation(value) <= 0

    def verdict(self, low: float | None, high: float | None) -> Literal["PASS", "FAIL", "INCONCLUSIVE"]:
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
    try:
        bound = float(match["bound"])
    except ValueError:
        raise ValueError(f"{expr!r} has the bound {match['bound']!r}, which is no number") from None
    if bound != bound or bound in (float("inf"), float("-inf")):
        raise ValueError(f"{expr!r} has no finite bound")
    return Constraint(" ".join((match["key"], op, match["bound"])), match["key"], op, bound)  # type: ignore[arg-type]


def total_violation(constraints: tuple[Constraint, ...], values: Mapping[str, float]) -> float:
    """Sum of the positive violations: 0 where all hold.

    Raises:
        KeyError: a constrained objective was not measured; a missing number never counts as met.
    """
    return sum(max(0.0, c.violation(values[c.objective])) for c in constraints)
