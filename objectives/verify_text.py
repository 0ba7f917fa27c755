"""The record of a bundle's check as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def told(record: Mapping[str, Any]) -> str:
    """A heading, a line for everything that was judged, the figures here beside those measured before, the verdict."""
    lines = [*_heading(record), "", *_files(record["files"])]
    if record["problem"]:
        return "\n".join([*lines, "", f"FAIL: it cannot be used on this device: {record['problem']}"])
    lines += [*_answers(record["answers"]), *map(_limit, record["limits"])]
    lines += ["", *_figures(record), "", *_device(record), "", _verdict(record)]
    return "\n".join(lines)


def _heading(record: Mapping[str, Any]) -> list[str]:
    bundle = record.get("bundle")
    return [bundle["name"], f"bundle {bundle['digest']}"] if bundle else ["a bundle of another make"]


def _files(files: Mapping[str, Any]) -> list[str]:
    return [_line(files["verdict"], f"files: all {files['count']} as they were made, {files['bytes'] / 1e6:.0f} MB")]


def _answers(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return [_line(None, "answers: not checked, as this bundle was made without sample rows")]
    n, before = found["n"], found["right_before"]
    lines = [
        _line(found["verdict"], f"answers: {found['agree']} of {n} sample rows are answered as when measured"),
        _line("", f"so {found['least_agreement']:.1%} of all or more are, with {found['confidence']:.0%} confidence; "
              f"{found['wanted']:.0%} is wanted"),
        _line("", f"{found['right']} of {n} are right here, {before} were"),
    ]
    low = found["accuracy_low"]
    if found["verdict"] == "FAIL":
        lines.append(_line("", f"at most {found['most_right']:.1%} of all can be right here; when measured, "
                           f"{low:.1%} or more were"))
    return lines


def _limit(found: Mapping[str, Any]) -> str:
    if found["verdict"] is None or found["value"] is None:
        measured = f"; it was {_figure(found['measured'], found['unit'])}" if found["measured"] else ""
        return _line(found["verdict"], f"{found['expr']}: {found['note']}{measured}")
    note = f"; {found['note']}" if found["note"] else ""
    return _line(found["verdict"], f"{found['expr']}: {_figure(found, found['unit'])}{note}")


def _figures(record: Mapping[str, Any]) -> list[str]:
    """A table: here, when measured, and how many times as much."""
    cpu = record["measured_with"]["cpu"] or "another machine"
    rows = [("", "here", f"when measured ({cpu})", "ratio")]
    for key, found in record["values"].items():
        before = _figure(found["measured"], found["unit"]) if found["measured"] else "–"
        ratio = f"{found['ratio']:.2f}" if found["ratio"] is not None else "–"
        rows.append((key, _figure(found, found["unit"]), before, ratio))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _device(record: Mapping[str, Any]) -> list[str]:
    device = record["device"]
    if not device:
        return ["This device was not looked at."]
    machine, settings = device["machine"], device["settings"]
    lines = [f"Intervals here are at {record['confidence']:.0%} confidence.",
             f"This device: {machine['cpu'] or machine['architecture']}, {machine['cores_usable']} cores, "
             f"{machine['platform']}; {settings['threads']} threads, provider {settings['provider']}."]
    if record["timing"]:
        lines.append(f"While it was timed: {record['timing']['sentence']}.")
    before = record["measured_with"]["versions"]
    other = [f"{name} {version} (was {before[name]})" for name, version in device["versions"].items()
             if before.get(name) not in (None, version)]
    return [*lines, f"Other versions than when measured: {', '.join(other)}."] if other else lines


def _verdict(record: Mapping[str, Any]) -> str:
    why = {
        "PASS": "everything that was judged holds on this device.",
        "FAIL": f"not on this device: {_named(record, 'FAIL')}.",
        "INCONCLUSIVE": f"not settled on this device: {_named(record, 'INCONCLUSIVE')}.",
    }[record["verdict"]]
    left = f" Left out: {'; '.join(record['left_out'])}." if record["left_out"] else ""
    return f"{record['verdict']}: {why}{left}"


def _named(record: Mapping[str, Any], verdict: str) -> str:
    answers: Sequence[str] = ["the answers"] if record["answers"] and record["answers"]["verdict"] == verdict else []
    return ", ".join([*answers, *(limit["expr"] for limit in record["limits"] if limit["verdict"] == verdict)])


def _line(verdict: str | None, text: str) -> str:
    return f"{'–' if verdict is None else verdict:<12}  {text}"


def _figure(found: Mapping[str, Any], unit: str) -> str:
    """``274 [264, 302] ms (n = 140)``; an end that is not known is ``…``."""
    low, high = found["low"], found["high"]
    ends = "" if low == high == found["value"] or found["n"] == 1 else f" [{_number(low)}, {_number(high)}]"
    count = f" (n = {found['n']})" if found["n"] > 1 else ""
    return f"{_number(found['value'])}{ends}{f' {unit}' if unit else ''}{count}"


def _number(value: float | None) -> str:
    if value is None:
        return "…"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
