"""What a system tells of its machine, read with the standard library alone: before anything is installed on it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

#: Distributions that bring ``onnxruntime``, and those that bring ``onnxruntime_genai``; a machine has one of each.
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-qnn")
GENAI = ("onnxruntime-genai", "onnxruntime-genai-cuda", "onnxruntime-genai-directml")
#: Both, by the first of each, which stands for all.
BUILDS = {builds[0]: builds for builds in (RUNTIMES, GENAI)}

_THERMAL = Path("/sys/class/thermal")
#: Thermal zones of the processor itself, as x86, the Raspberry Pi, Rockchip, Jetson and others name them.
_PROCESSOR_ZONES = ("x86_pkg_temp", "cpu", "soc", "acpitz", "core")


def cpu_model() -> str | None:
    """The processor's name; on boards whose processor has none, the board's."""
    # ARM boards name the board in the device tree and only a part number in cpuinfo.
    for line in (read("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return board() or platform.processor() or None


def board() -> str | None:
    """The board's name, where the system has a device tree: ``Raspberry Pi 5 Model B Rev 1.0``."""
    return read("/proc/device-tree/model")


def governor() -> str | None:
    """The first core's frequency governor; None where there is none."""
    return read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def usable_cores() -> int | None:
    """The cores that this process may use."""
    # Not on macOS and Windows.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def memory_mb(line: str) -> int | None:
    """A line of /proc/meminfo (``MemTotal``, ``MemAvailable``) in MB of 10^6 bytes; None elsewhere than on Linux."""
    for found in (read("/proc/meminfo") or "").splitlines():
        key, _, value = found.partition(":")
        if key == line:
            return round(int(value.split()[0]) * 1024 / 1e6)
    return None


def temperature_c(zones: Path = _THERMAL) -> float | None:
    """The hottest of the processor's thermal zones, in °C; None where the system has none."""
    found = []
    for zone in zones.glob("thermal_zone*"):
        kind, reading = read(str(zone / "type")) or "", read(str(zone / "temp")) or ""
        if kind.lower().startswith(_PROCESSOR_ZONES) and reading.lstrip("-").isdigit():
            found.append(int(reading) / 1000)
    return max(found) if found else None


def package_version(*names: str) -> str | None:
    """The version of the first of these distributions that is installed; nothing is imported."""
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def read(path: str) -> str | None:
    """A small file's text without its line end; None where it is empty or cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip(" \n\0") or None
    except OSError:
        return None
