"""What a device has, held against what measuring on it takes. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from autotune.errors import DeviceError

#: ``note``: worth knowing. ``warning``: figures suffer. ``problem``: nothing can be measured.
State = Literal["ok", "note", "warning", "problem"]
#: What ONNX Runtime's packages are made for.
ARCHITECTURES = ("x86_64", "aarch64", "arm64")
#: The distributions that bring ``onnxruntime`` and ``onnxruntime_genai`` for each execution provider.
RUNTIMES = {"cpu": ("onnxruntime", "onnxruntime-genai"), "cuda": ("onnxruntime-gpu", "onnxruntime-genai-cuda"),
            "dml": ("onnxruntime-directml", "onnxruntime-genai-directml")}
_DISTRIBUTION = "autotune-edge"
#: As the facts name them.
LIBRARIES = ("numpy", "psutil", "onnxruntime", "onnxruntime-genai")
_CLOCK_S = 24 * 3600.0
_BUSY = 0.3
_HOT_C = 70.0
_STEADY_GOVERNORS = ("performance",)


@dataclass(frozen=True)
class Check:
    """``accepted`` says what would do, and the command that helps, where ``state`` is not ok."""

    name: str
    found: str
    state: State = "ok"
    accepted: str = ""


def checks(device: str, facts: Mapping[str, Any], provider: str = "cpu", providers: Mapping[str, Any] | None = None,
           now: float | None = None) -> list[Check]:
    """Of the agent's facts, and of its answer about execution providers where there is one.

    ``device`` is its name in commands; ``now`` is this machine's time.
    """
    lasting, moment = facts["lasting"], facts["now"]
    setup = f"autotune device setup {device}"
    found = [Check("board", lasting["board"] or lasting["cpu"] or "not told"), _architecture(lasting),
             Check("python", lasting["python"])]
    for name, distribution in zip(LIBRARIES, distributions(provider), strict=True):
        found.append(_library(distribution, lasting["libraries"].get(name), setup))
    if providers is not None:
        found.append(_provider(provider, providers, setup))
    return [*found, _memory(lasting, moment), Check("disk", f"{moment['disk_free_mb']} MB free"), clock(moment, now),
            _governor(lasting), _load(moment), _temperature(moment)]


def require(device: str, found: Sequence[Check]) -> None:
    """Raises DeviceError for the first problem, which names the others."""
    problems = [check for check in found if check.state == "problem"]
    if problems:
        where = ", ".join(check.name for check in problems)
        accepted = "; ".join(dict.fromkeys(check.accepted for check in problems))
        raise DeviceError(device, where, "; ".join(check.found for check in problems), accepted)


def distributions(provider: str) -> tuple[str, ...]:
    """What the probe needs on a device, in the order of ``LIBRARIES``."""
    return ("numpy", "psutil", *RUNTIMES[provider])


def accepted_versions(distribution: str) -> SpecifierSet:
    """The range that autotune was tested with; any, where its own metadata are not installed."""
    try:
        stated = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return SpecifierSet()
    return next((r.specifier for r in map(Requirement, stated) if r.name == distribution), SpecifierSet())


def clock(moment: Mapping[str, Any], now: float | None = None) -> Check:
    """A clock that is far off spoils no timing; it stops downloads, whose certificates it takes for expired."""
    off = float(moment["time"]) - (time.time() if now is None else now)
    if abs(off) <= _CLOCK_S:
        return Check("clock", f"{abs(off):.0f} s off" if abs(off) >= 2 else "right")
    day = time.strftime("%Y-%m-%d", time.gmtime(moment["time"]))
    return Check("clock", f"says {day}, {abs(off) / 86400:.0f} days {'ahead' if off > 0 else 'behind'}", "note",
                 "within a day of here: sudo timedatectl set-ntp true, or sudo date -s TIME; timings do not use it")


def _architecture(lasting: Mapping[str, Any]) -> Check:
    found = f"{lasting['architecture']}, {lasting['bits']} bits, {lasting['platform']}"
    fits = lasting["architecture"] in ARCHITECTURES and lasting["bits"] == 64
    if fits or lasting["libraries"].get("onnxruntime-genai"):  # someone has built it for this one
        return Check("architecture", found)
    return Check("architecture", found, "problem",
                 f"a 64-bit system and Python on {' or '.join(ARCHITECTURES)}, which ONNX Runtime is made for")


def _library(name: str, version: str | None, setup: str) -> Check:
    wanted = accepted_versions(name)
    told = f"{name} {wanted}" if str(wanted) else name
    if version is None:
        return Check(name, f"{name} is not installed", "problem", f"{told}: {setup}, or a python that has it")
    if wanted.contains(version, prereleases=True):
        return Check(name, version)
    if _older(version, wanted) and name.startswith("onnxruntime"):
        # What an older one cannot read shows as an error in its loader, or as other answers.
        return Check(name, f"{name} {version}", "problem", f"{told}: {setup}")
    return Check(name, version, "note", f"{told} is what it was tested with")


def _older(version: str, wanted: SpecifierSet) -> bool:
    lowest = [Version(s.version) for s in wanted if s.operator in (">=", "==", "~=")]
    try:
        return bool(lowest) and Version(version) < min(lowest)
    except InvalidVersion:
        return False


def _provider(provider: str, told: Mapping[str, Any], setup: str) -> Check:
    there = [name for name, has in told["found"].items() if has]
    if told["problem"]:
        return Check("onnxruntime-genai", f"does not load: {told['problem']}", "problem",
                     f"one that loads on this system: {setup}")
    if provider not in there:
        return Check("provider", f"{', '.join(there)}, not {provider}", "problem",
                     f"target.provider {' or '.join(there)}, or an ONNX Runtime GenAI with {provider} there")
    return Check("provider", ", ".join(there))


def _memory(lasting: Mapping[str, Any], moment: Mapping[str, Any]) -> Check:
    free, cores = moment["memory_available_mb"], lasting["cores"]
    return Check("memory", f"{lasting['memory_gb']} GB, {free} MB available, {cores} cores" if free else "not told")


def _governor(lasting: Mapping[str, Any]) -> Check:
    governor = lasting["governor"]
    if governor is None or governor in _STEADY_GOVERNORS:
        return Check("governor", governor or "not told")
    return Check("governor", governor, "note", "performance, under which the clock does not follow the load: "
                 "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")


def _load(moment: Mapping[str, Any]) -> Check:
    load = moment["load"]
    if load is None or load <= _BUSY:
        return Check("load", "idle" if load is not None else "not told")
    return Check("load", f"{load:.1f} processes at work in the last minute", "warning",
                 "a device of one's own: timings that others disturb are taken again, and said to be in doubt")


def _temperature(moment: Mapping[str, Any]) -> Check:
    heat = moment["temperature_c"]
    if heat is None or heat < _HOT_C:
        return Check("temperature", "not told" if heat is None else f"{heat:.0f} °C")
    return Check("temperature", f"{heat:.0f} °C", "warning", "a cool start: heat makes the clock slower")
