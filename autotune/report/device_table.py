"""Devices side by side: artifacts of the base model, the front's trials and the certificate's, by device. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.constraints import Constraint
from autotune.errors import ConfigError
from autotune.finished import FinishedRun
from autotune.stats import Measurement
from objectives.base import on_device, split_device

#: The target's name where it stands beside others.
TARGET = "target"
_STANDING = ("latency_ms.p50", "latency_ms.p95")


@dataclass(frozen=True)
class Board:
    """What a device is: ``facts`` are (name, text); ``answers`` how those to the test rows compare with the target's,
    as the certificate found, empty without one."""

    name: str
    facts: Sequence[tuple[str, str]]
    answers: str


@dataclass(frozen=True)
class Value:
    """A measured value, with the limits that are on it there and their verdicts."""

    key: str
    measured: Measurement
    verdicts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Row:
    """An artifact; ``cells`` are the values by device, in the devices' order."""

    title: str
    source: str
    cells: Sequence[Sequence[Value]]


@dataclass(frozen=True)
class SideBySide:
    boards: Sequence[Board]
    rows: Sequence[Row]


def side_by_side(run: FinishedRun) -> SideBySide | None:
    """None for a study of one device."""
    devices: Mapping[str, Any] = run.document["environment"].get("devices", {})
    if not devices:
        return None
    names = ["", *devices]
    keys = _keys(run)
    rows = [_row(p["label"], "the base model, by the search", run.measured(p["values"]), names, keys, run.constraints)
            for p in [*run.document.get("deploy_points", ()), *run.document.get("dropped", ())] if p.get("values")]
    rows += [_row(f"trial {t.number} · {t.deploy_point}", "on the front, by the search", t.values, names, keys,
                  run.constraints, t.verdicts) for t in run.trials if t.on_front]
    looks = (run.document.get("certificate") or {}).get("looks", ())
    rows += [_row(f"trial {look['trial']} · {run.trial(look['trial']).deploy_point}", "measured anew",
                  run.measured(look["values"]), names, keys, run.constraints,
                  {c["expr"]: c["verdict"] for c in look["constraints"]}) for look in looks if look["values"]]
    return SideBySide([_target(run, looks), *(_further(name, about, looks) for name, about in devices.items())], rows)


def _keys(run: FinishedRun) -> list[str]:
    """Latency, and what else was asked for or limited on some device."""
    asked = [split_device(key) for key in run.asked]
    wanted = {plain for plain, device in asked if device}
    return list(dict.fromkeys([*_STANDING, *(plain for plain, _ in asked if plain in wanted)]))


def _row(
    title: str, source: str, values: Mapping[str, Measurement], names: Sequence[str], keys: Sequence[str],
    limits: Sequence[Constraint], verdicts: Mapping[str, str] | None = None,
) -> Row:
    def cell(name: str) -> list[Value]:
        wanted = [on_device(key, name) for key in keys]
        return [Value(split_device(key)[0], values[key], _verdicts(key, values[key], limits, verdicts))
                for key in wanted if key in values]

    return Row(title, source, [cell(name) for name in names])


def _verdicts(
    key: str, measured: Measurement, limits: Sequence[Constraint], known: Mapping[str, str] | None
) -> list[tuple[str, str]]:
    """As they were found; where none were, of an artifact of the base model, by the interval."""
    mine = [c for c in limits if c.objective == key]
    if known is not None:
        return [(c.expr, known[c.expr]) for c in mine if c.expr in known]
    return [(c.expr, c.verdict(measured.low, measured.high)) for c in mine if not c.relative or c.baseline is not None]


def _target(run: FinishedRun, looks: Sequence[Mapping[str, Any]]) -> Board:
    here = run.document["environment"]
    try:
        asked = run.study.get("target", {})
    except ConfigError:  # the folder has lost it
        asked = {}
    about = {**here.get("device", here), "provider": asked.get("provider"), "threads": asked.get("threads")}
    timing = looks[-1]["timing"] if looks and looks[-1]["timing"] else {}
    return Board(TARGET, _facts(about, timing), "")


def _further(name: str, about: Mapping[str, Any], looks: Sequence[Mapping[str, Any]]) -> Board:
    part = next((look["devices"][name] for look in reversed(looks) if name in look.get("devices", {})), None)
    told = ""
    if part:
        found = part["answers"]
        told = (f"{found['differ']} of {found['rows']} test rows answered otherwise than on the target"
                f" ({found['right']} right there, {found['right_on_target']} on the target)" if found["differ"]
                else f"the target's answers to all {found['rows']} test rows")
    return Board(name, _facts(about, part["timing"] if part else {}), told)


def _facts(about: Mapping[str, Any], timing: Mapping[str, Any]) -> list[tuple[str, str]]:
    libraries = about.get("libraries") or {}
    probe = timing.get("probe") or {}
    degrees = [t for t in probe.get("temperature_c") or () if t is not None]
    told = {
        "board": about.get("board") or about.get("cpu") or about.get("host"), "cores": about.get("cores"),
        "memory": f"{about['memory_gb']} GB" if about.get("memory_gb") else None,
        "runs with": f"{about.get('provider')}, {about.get('threads')} thread{'s' * (about.get('threads') != 1)}",
        "ONNX Runtime": libraries.get("onnxruntime"), "governor": about.get("governor"),
        "temperature": " → ".join(f"{t:.0f} °C" for t in degrees), "timing": timing.get("sentence"),
    }
    return [(name, str(text)) for name, text in told.items() if text]
