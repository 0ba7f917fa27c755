"""The certificate as a colleague would tell it, and as results.json holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.certifying.certificate import Certificate, Held, Look, OnDevice
from autotune.report.results import interval_json, value_json
from autotune.report.wording import figure, join, missed_by, show, with_unit


def as_json(certificate: Certificate, units: Mapping[str, str], text: Sequence[str]) -> dict[str, Any]:
    """The whole certificate; ``units`` by objective, ``text`` its ``sentences``."""
    miss = certificate.miss
    return {
        "verdict": certificate.verdict,
        "trial": certificate.trial,
        "confidence": certificate.confidence,
        "finalists": certificate.finalists,
        "method": certificate.method,
        "looks": [_look(look, units) for look in certificate.looks],
        "nearest_miss": {"trial": miss.trial, "expr": miss.expr, "shortfall": miss.shortfall,
                         "unit": units.get(miss.objective, "")} if miss else None,
        "relax_to": certificate.relax_to,
        "text": list(text),
    }


def _look(look: Look, units: Mapping[str, str]) -> dict[str, Any]:
    evidence = look.evidence
    return {
        "trial": look.trial,
        "verdict": look.verdict,
        "confidence": look.confidence,
        "problem": look.problem,
        "values": {key: value_json(m, tier="certify") for key, m in evidence.values.items()} if evidence else {},
        "constraints": [
            {"expr": h.constraint.expr, "verdict": h.verdict, "compared": h.tested.what, "bound": h.tested.bound,
             "unit": units.get(h.constraint.objective, ""), **interval_json(h.tested.measured), "doubt": h.tested.doubt,
             "n_to_settle": h.needed}
            for h in look.held
        ],
        "timing": dict(evidence.timing) if evidence else {},
        "logits": dict(evidence.logits) if evidence else {},
        **({"devices": {name: _device(found) for name, found in evidence.devices.items()}}
           if evidence and evidence.devices else {}),
    }


def _device(found: OnDevice) -> dict[str, Any]:
    return {
        "values": {key: value_json(m, tier="certify") for key, m in found.values.items()},
        "timing": dict(found.timing),
        "answers": {"rows": found.rows, "differ": found.differ, "right": found.right,
                    "right_on_target": found.on_target},
    }


def sentences(
    certificate: Certificate, labels: Mapping[int, str], keys: Sequence[str], units: Mapping[str, str], rows: int
) -> list[str]:
    """What the certificate says, a line each.

    ``labels`` are the deploy points by trial, ``keys`` the objectives to name, ``rows`` those of the test split.
    """
    lines = [_passed_over(look, labels, units) for look in certificate.looks
             if look.trial != certificate.trial and certificate.verdict == "PASS"]
    chosen = certificate.chosen
    if chosen is None:
        return lines + _failure(certificate, labels, units)
    name = f"trial {chosen.trial} ({labels[chosen.trial]})"
    if chosen.evidence is None:
        return [*lines, f"Nothing is certified: {name} could not be measured: {chosen.problem}"]
    told = " ".join([_told(chosen, keys, units, rows), *map(_answers_on, chosen.evidence.devices.items())])
    if certificate.verdict == "PASS":
        limits = [h.constraint.expr for h in chosen.held]
        holds = (f"So {join(limits)} hold{'s' * (len(limits) == 1)}, with {chosen.confidence:.4g} confidence."
                 if limits else "No limits were set.")
        return [*lines, f"Certified: {name}. {told} {holds}"]
    return [*lines, f"Not settled: {name}. {told}", *(_open(h, units) for h in chosen.held if h.verdict != "PASS")]


def _told(look: Look, keys: Sequence[str], units: Mapping[str, str], rows: int) -> str:
    assert look.evidence is not None
    values = look.evidence.values
    told = []
    for key in dict.fromkeys([*keys, *(h.constraint.objective for h in look.held)]):
        if key in values:
            about = "requests" if values[key].n > 1 and units.get(key) not in ("", "MB") else "rows"
            count = f" over {values[key].n} {about}" if values[key].n > 1 else ""
            told.append(f"{key} {show(values[key], True)}{with_unit(units.get(key, ''))}{count}")
    return f"On {rows} rows that the search never saw and on this artifact itself: {join(told)}."


def _answers_on(about: tuple[str, OnDevice]) -> str:
    """How a further device's answers to the test rows compare with the target's."""
    name, found = about
    if not found.differ:
        return f"{name} gave the same answers to all {found.rows} rows."
    return (f"{name} answered {found.differ} of {found.rows} rows otherwise than the target: {found.right} are right "
            f"there, {found.on_target} on the target.")


def _open(held: Held, units: Mapping[str, str]) -> str:
    """Why one limit is not settled, and what would settle it."""
    tested, limit = held.tested, held.constraint.expr
    if held.verdict == "FAIL":
        return f"  {limit}: does not hold; {_compared(held, units)}."
    if tested.doubt:
        return f"  {limit}: not settled, because {tested.doubt}; measure again when the machine is quiet."
    line = f"  {limit}: {_compared(held, units)}, which lies on both sides of the limit."
    if tested.settle is None:
        return line
    if held.needed is None:
        return f"{line} It is so near the limit that no reasonable number of {tested.counted} would settle it."
    return (f"{line} About {held.needed} {tested.counted} would settle it, "
            f"{held.needed - tested.measured.n} more than there were.")


def _compared(held: Held, units: Mapping[str, str]) -> str:
    unit = with_unit(units.get(held.constraint.objective, ""))
    return f"{held.tested.what} is {show(held.tested.measured, True)}{unit} (n = {held.tested.measured.n})"


def _passed_over(look: Look, labels: Mapping[int, str], units: Mapping[str, str]) -> str:
    name = f"trial {look.trial} ({labels[look.trial]})"
    if look.problem:
        return f"Passed over: {name}, which could not be measured: {look.problem}"
    broken = [f"{h.constraint.expr} ({h.verdict.lower()}: {_compared(h, units)})" for h in look.held
              if h.verdict != "PASS"]
    return f"Passed over: {name}, for {join(broken)}."


def _failure(certificate: Certificate, labels: Mapping[int, str], units: Mapping[str, str]) -> list[str]:
    miss = certificate.miss
    if miss is None:
        return ["Nothing is certified: there was no finalist."]
    unit = units.get(miss.objective, "")
    line = (f"Nothing is certified: measured again, none of {certificate.finalists} finalists meets the limits. "
            f"Nearest: trial {miss.trial} ({labels[miss.trial]}), which {missed_by(miss, unit)}")
    if certificate.relax_to is None:
        return [line + "."]
    return [f"{line}; relax it to {figure(certificate.relax_to)}{with_unit(unit)} and trial {miss.trial} holds it."]
