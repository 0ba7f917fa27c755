"""What a measurement was made on, as far as the machine tells."""

from __future__ import annotations

import platform
from typing import Any

import psutil

from objectives.base import MB
from objectives.board import RUNTIMES, board, cpu_model, governor, package_version, usable_cores


def versions(genai_version: str) -> dict[str, str | None]:
    """ONNX Runtime's version is read from its package: importing it would load the library twice."""
    return {
        "python": platform.python_version(),
        "numpy": package_version("numpy"),
        "onnxruntime": package_version(*RUNTIMES),
        "onnxruntime_genai": genai_version,
    }


def machine() -> dict[str, Any]:
    """CPU and board model, cores (physical, logical, and those this process may use), memory, platform and the
    first core's frequency governor; None where it cannot be read."""
    return {
        "cpu": cpu_model(),
        "board": board(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": psutil.cpu_count(),
        "cores_usable": usable_cores(),
        "memory_mb": round(psutil.virtual_memory().total / MB),
        "platform": platform.platform(),
        "architecture": platform.machine(),
        "governor": governor(),
    }
