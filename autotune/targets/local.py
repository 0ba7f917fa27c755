"""This machine as the target: the probe in a fresh process here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.errors import ProbeError
from autotune.pipeline.progress import Report, silent
from autotune.targets.address import LOCAL
from objectives import fresh
from objectives.result import ProbeFailure, ProbeResult

__all__ = ["Local", "ProbeResult", "run_probe"]


class Local:
    """This machine; ``fingerprint`` is what of it a stored latency depends on."""

    is_remote, where = False, LOCAL
    about = None

    def __init__(self, fingerprint: Mapping[str, Any] | None = None) -> None:
        self.fingerprint: Mapping[str, Any] = fingerprint or {}

    def memory_available(self) -> int:
        import psutil

        return int(psutil.virtual_memory().available)

    def measure(self, request: Mapping[str, Any], *, workdir: Path, report: Report = silent) -> ProbeResult:
        return run_probe(request, workdir=workdir, report=report)

    def stop(self) -> None:
        """No thread but the one that waits is there to ask for it."""


def run_probe(
    request: Mapping[str, Any], *, python: str = sys.executable, workdir: Path,
    timeout_s: float | None = None, report: Report = silent,
) -> ProbeResult:
    """What `objectives.fresh.run_probe` does. Raises ProbeError where that raises ProbeFailure."""
    try:
        return fresh.run_probe(request, python=python, workdir=workdir, timeout_s=timeout_s, report=report)
    except ProbeFailure as failure:
        raise ProbeError(str(failure)) from failure
