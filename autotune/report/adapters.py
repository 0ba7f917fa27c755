"""Adapters as results.json tells them: how far each was trained, how it was judged, what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.search.proposals import Proposed
from autotune.search.rungs import Rung
from autotune.trials import TrialRecord


def adapters_json(proposed: Sequence[Proposed], records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """One a proposal, in their order; ``number`` counts from 1, as people are told. ``trials`` are those scored."""
    return [
        {
            "number": place, "params": p.params.flat(), "state": p.state, "reason": p.reason,
            "rungs": [_rung(r) for r in p.rungs if not r.passed_by], "skipped": dict(p.skipped),
            "trials": [r.number for r in records if r.adapter == p.params and not r.interrupted],
        }
        for place, p in enumerate(proposed, 1)
    ]


def _rung(rung: Rung) -> dict[str, Any]:
    return {"step": rung.step, "fraction": rung.fraction, "valid_loss": rung.valid_loss, "right": dict(rung.right),
            "rows": rung.rows, "seconds": round(rung.seconds, 2)}
