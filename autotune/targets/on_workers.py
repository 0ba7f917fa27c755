"""The machine that a study's workers measure on: a measurement is a stage, and comes to the one that has the device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.errors import ProbeError
from autotune.pipeline.progress import Report, silent
from autotune.run_folder import environment
from autotune.targets.address import LOCAL
from autotune.targets.local import Local, run_probe
from autotune.workers import Workers
from objectives.result import ProbeResult


class OnWorkers:
    """Opened, it knows the machine that answers: latency is measured there too."""

    is_remote, where = False, LOCAL
    about = None

    def __init__(self, workers: Workers, lasting: tuple[str, ...]) -> None:
        """``lasting`` are the names of `run_folder.environment` that stored measurements depend on.

        Raises StageError where no worker can tell them.
        """
        self._workers = workers
        told = workers.run(environment, kind="answers")
        self.fingerprint: Mapping[str, Any] = {name: told[name] for name in lasting}

    def memory_available(self) -> int:
        return self._workers.run(Local().memory_available, kind="answers")

    def measure(self, request: Mapping[str, Any], *, workdir: Path, report: Report = silent) -> ProbeResult:
        """See `autotune.targets.device.Device`: as many at a time as the workers take, of latency one."""
        timed = any(task["kind"] == "latency" for task in request["tasks"])
        return self._workers.run(run_probe, request, workdir=workdir, error=ProbeError, on_progress=report,
                                 reporting=True, kind="probe" if timed else "answers")

    def stop(self) -> None:
        """Whoever ends the workers ends what they measure."""
