"""The table of adapters: how far each was trained, what it was judged by, what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.finished import FinishedRun
from autotune.report.parameters import adapter_text
from autotune.report.wording import join, number, part


@dataclass(frozen=True)
class AdapterRow:
    """``rungs``: a line each. ``trials``: numbers of those scored. ``reason``: why it was stopped, failed, or not
    scored everywhere."""

    number: int
    adapter: str
    state: str
    rungs: tuple[str, ...]
    trials: str
    reason: str


def adapter_table(run: FinishedRun) -> list[AdapterRow]:
    """Every adapter that was proposed; nothing for runs that kept no record of them."""
    found: Sequence[Mapping[str, Any]] = run.document.get("adapters", ())
    return [
        AdapterRow(
            a["number"], adapter_text(a["params"]), a["state"], tuple(_rung(r) for r in a["rungs"]),
            join([str(n) for n in a["trials"]]) if a["trials"] else "–",
            " · ".join([*([a["reason"]] if a["reason"] else []), *(f"{k}: {why}" for k, why in a["skipped"].items())]))
        for a in found
    ]


def _rung(rung: Mapping[str, Any]) -> str:
    told = [f"{part(rung['fraction'])} (step {rung['step']})"]
    if rung["valid_loss"] is not None:
        told.append(f"loss {number(rung['valid_loss'])}")
    if rung["right"]:
        right = ", ".join(f"{label} {count}" for label, count in rung["right"].items())
        told.append(f"right of {rung['rows']}: {right}")
    return "; ".join(told)
