"""How a difference between two trials is put into words, and whether it is more than chance."""

from __future__ import annotations

from autotune.comparing.contrast import Contrast
from autotune.report.wording import figure, with_unit
from objectives.base import is_answers


def difference(key: str, found: Contrast, unit: str) -> str:
    """``+0.055, not settled`` or ``-102 ms (-36%)``."""
    if not found.difference:
        return "the same"
    share = f" ({found.share:+.0%})" if found.share is not None and not is_answers(key) else ""
    sign = "+" if found.difference > 0 else "-"
    return f"{sign}{_size(key, found)}{with_unit(unit)}{share}{'' if found.settled else ', not settled'}"


def amount(key: str, found: Contrast, unit: str) -> str:
    """A difference without its direction, as what is gained or given up."""
    share = f" ({abs(found.share):.0%})" if found.share is not None and not is_answers(key) else ""
    return f"{_size(key, found)}{with_unit(unit)} of {key}{share}{doubt(found)}"


def doubt(found: Contrast) -> str:
    """Why a difference may be none; empty where it is settled."""
    if found.settled or not found.difference:
        return ""
    if found.how == "rows":
        return f" (not settled: p = {found.p_value:.2g} on the same {found.n} rows)"
    return " (not settled: the intervals meet)"


def _size(key: str, found: Contrast) -> str:
    size = abs(found.difference)
    return f"{size:.3f}" if is_answers(key) else figure(size)
