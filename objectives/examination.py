"""A bundle whose files are whole, examined on this device: the record that verify.py prints (autotune/verify@1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from objectives import bundle as bundles
from objectives import measuring
from objectives.base import ROW_SHARES, source_of, unit_of
from objectives.bundle import Bundle, Limit, Sample
from objectives.exact import Interval
from objectives.integrity import Checked
from objectives.measuring import Timed
from objectives.result import ProbeFailure
from objectives.verdicts import AGREEMENT, SURE, Answers, Held, judge_answers, judge_limit, overall

SCHEMA = "autotune/verify@1"

Say = Callable[[str], None]


def examine(folder: Path, checked: Checked, *, quick: bool, say: Say) -> dict[str, Any]:
    """The record: a verdict on the whole, on the answers and on every limit that can be judged here, and what cannot.

    ``quick`` times nothing. A model that does not run on this device is a FAIL with the reason as its ``problem``.
    """
    files = {"verdict": "PASS", "count": len(checked.files), "problems": [],
             "bytes": sum(int(file["size"]) for file in checked.files.values())}
    record: dict[str, Any] = {"schema": SCHEMA, "verdict": "FAIL", "files": files, "problem": None}
    try:
        opened = bundles.parsed(folder, checked.manifest or {})
        record["bundle"] = {"name": opened.name, "digest": opened.digest}
        return record | _examined(opened, quick, say)
    except (ProbeFailure, ValueError, RuntimeError, OSError) as failure:
        return {**record, "problem": " ".join(str(failure).split())}


def _examined(opened: Bundle, quick: bool, say: Say) -> dict[str, Any]:
    samples = opened.samples()
    judged, facts = _answers(opened, samples, say) if samples else (None, {})
    timed = None if quick else measuring.timed(opened, samples, say)
    held = [_held(opened, limit, timed) for limit in opened.limits]
    return {
        "verdict": overall([judged.verdict if judged else None, *(h.verdict for h in held)]),
        "answers": {**asdict(judged), "wanted": AGREEMENT, "confidence": SURE} if judged else None,
        "limits": [_limit_record(h, opened) for h in held],
        "values": {key: _value_record(key, found, opened) for key, found in _values(opened, timed).items()},
        "timing": {"state": timed.steadiness.state, "sentence": timed.steadiness.sentence()} if timed else None,
        "confidence": opened.confidence,
        "left_out": _left_out(samples, quick),
        "device": timed.facts if timed else facts,
        "measured_with": {"cpu": opened.cpu, "versions": dict(opened.versions)},
    }


def _answers(opened: Bundle, samples: Sequence[Sample], say: Say) -> tuple[Answers, Mapping[str, Any]]:
    say(f"asking {len(samples)} sample rows")
    told, facts = measuring.answers(opened, samples)
    share = next((opened.measured[key] for key in ROW_SHARES if key in opened.measured), None)
    return judge_answers(samples, told, share.low if share else None), facts


def _values(opened: Bundle, timed: Timed | None) -> dict[str, Interval]:
    return {**(timed.values if timed else {}), "size_mb": measuring.size(opened)}


def _held(opened: Bundle, limit: Limit, timed: Timed | None) -> Held:
    """A limit judged by what was measured here, or the reason why it is not."""
    source = source_of(limit.objective)
    if source == "predictions":
        return Held(limit, None, None, "rests on the answers above")
    if limit.bound is None or (limit.relative and source != "size"):
        return Held(limit, None, None, "is relative to a baseline on the machine that measured it")
    if source == "size":
        return judge_limit(limit, measuring.size(opened))
    if timed is None:
        return Held(limit, None, None, "was not measured (--quick)")
    found = timed.values.get(limit.objective) or timed.values.get(f"{limit.objective}.p50")
    if found is None:
        return Held(limit, "INCONCLUSIVE", None, "no request was long enough to measure it")
    unsteady = source == "latency" and timed.steadiness.state != "steady"
    return judge_limit(limit, found, timed.steadiness.sentence() if unsteady else "")


def _limit_record(held: Held, opened: Bundle) -> dict[str, Any]:
    key = held.limit.objective
    about = _value_record(key, held.found, opened) if held.found else {
        "value": None, "low": None, "high": None, "n": None, "unit": unit_of(key), **_before(key, opened),
        "ratio": None}
    return {"expr": held.limit.expr, "verdict": held.verdict, "bound": held.limit.bound, **about, "note": held.note}


def _value_record(key: str, found: Interval, opened: Bundle) -> dict[str, Any]:
    """A value with what it was on the machine that measured it, and the ratio to that."""
    before = _before(key, opened)
    measured = before["measured"]
    ratio = found.value / measured["value"] if measured and measured["value"] else None
    return {**asdict(found), "unit": unit_of(key), **before, "ratio": ratio}


def _before(key: str, opened: Bundle) -> dict[str, Any]:
    measured = opened.measured.get(key) or opened.measured.get(f"{key}.p50")
    return {"measured": asdict(measured) if measured else None}


def _left_out(samples: Sequence[Sample], quick: bool) -> list[str]:
    found = []
    if not samples:
        found.append("the answers, as this bundle was made without sample rows")
    if quick:
        found.append("latency, memory and load time, as --quick times nothing")
    return found
