"""Two trials' values of one objective: how far apart they are, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from autotune.paired import mcnemar
from autotune.stats import Measurement
from objectives.base import ROW_SHARES

Right = Sequence[bool]


@dataclass(frozen=True)
class Contrast:
    """``difference`` is first - second, ``share`` that of the second (None where it is 0).

    ``settled``: the two are told apart at 1 - confidence. ``how``: by McNemar's exact test on the ``n`` rows that both
    answered (then ``p_value``), or by intervals that do not meet.
    """

    difference: float
    share: float | None
    settled: bool
    how: Literal["rows", "intervals"]
    p_value: float | None = None
    n: int | None = None


def contrast(
    key: str, first: Measurement, second: Measurement, confidence: float, rows: tuple[Right, Right] | None = None
) -> Contrast:
    """``rows`` are which rows each side answered right, where both were asked the same ones.

    They are used for shares of right answers alone. Otherwise two intervals that do not meet settle it, which asks for
    more than a test does: where both are of confidence 1 - α, independent and alike, it is wrong far less often than α
    (Schenker & Gentleman 2001, Am. Stat. 55:182). An end that is not known settles nothing.

    Raises:
        ValueError: the rows of both sides are not as many.
    """
    difference = first.value - second.value
    share = difference / abs(second.value) if second.value else None
    if rows is not None and key in ROW_SHARES:
        p_value = mcnemar(*rows, confidence).p_value
        return Contrast(difference, share, p_value <= 1 - confidence, "rows", p_value, len(rows[0]))
    above, below = (first, second) if difference >= 0 else (second, first)
    apart = above.low is not None and below.high is not None and above.low > below.high
    return Contrast(difference, share, apart, "intervals")
