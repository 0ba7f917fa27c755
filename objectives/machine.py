"""What a measurement was made on, as far as the machine tells."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from objectives.base import MB


def versions(genai_version: str) -> dict[str, str | None]:
    """ONNX Runtime's version is read from its package: importing it would load the library twice."""
    return {
        "python": platform.python_version(),
        "numpy": _package("numpy"),
        "onnxruntime": _package("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-qnn"),
        "onnxruntime_genai": genai_version,
    }


def _package(*names: str) -> str | None:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def machine() -> dict[str, Any]:
    """CPU model, cores (physical, logical, and those this process may use), memory, platform and the
    first core's frequency governor; None where it cannot be read."""
    return {
        "cpu": _cpu_model(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": psutil.cpu_count(),
        "cores_usable": _usable_cores(),
        "memory_mb": round(psutil.virtual_memory().total / MB),
        "platform": platform.platform(),
        "architecture": platform.machine(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    }


def _usable_cores() -> int | None:
    # Not on macOS and Windows.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count()


def _cpu_model() -> str | None:
    # ARM boards name the board in the device tree and only a part number in cpuinfo.
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return _read("/proc/device-tree/model") or platform.processor() or None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip(" \n\0") or None
    except OSError:
        return None
