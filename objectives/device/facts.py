"""What a device is and has: read before anything is installed there, and again at every connection."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from objectives.board import (
    GENAI,
    RUNTIMES,
    board,
    cpu_model,
    governor,
    memory_mb,
    package_version,
    read,
    temperature_c,
    usable_cores,
)


def facts(folder: Path) -> dict[str, Any]:
    """``lasting`` names the device and its software, as measurements rest on them; ``now`` changes from moment to
    moment. None where the system does not tell. ``folder`` is on the disk that is looked at."""
    return {"lasting": _lasting(), "now": _now(folder)}


def _lasting() -> dict[str, Any]:
    memory = memory_mb("MemTotal")
    return {
        "id": _identity(),
        "board": board(),
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_gb": None if memory is None else round(memory / 1000, 1),
        "platform": platform.platform(),
        "architecture": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "governor": governor(),
        "python": platform.python_version(),
        "libraries": {
            "numpy": package_version("numpy"),
            "psutil": package_version("psutil"),
            "onnxruntime": package_version(*RUNTIMES),
            "onnxruntime-genai": package_version(*GENAI),
        },
    }


def _now(folder: Path) -> dict[str, Any]:
    return {
        "time": time.time(),
        "disk_free_mb": round(shutil.disk_usage(folder).free / 1e6),
        "memory_available_mb": memory_mb("MemAvailable"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "temperature_c": temperature_c(),
    }


def _identity() -> str | None:
    """Tells one board from another of its kind, and says nothing else of it; None where nothing tells them apart.

    Memory cards are copied with their machine-id, so the board's serial number is a part of it.
    """
    told = [read("/proc/device-tree/serial-number"), read("/etc/machine-id")]
    if not any(told):
        return None
    return hashlib.sha256(":".join(part or "" for part in told).encode()).hexdigest()[:12]
