"""What a study needs of the device that it measures on, wherever that is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from autotune.pipeline.progress import Report, silent
from objectives.result import ProbeResult


class Device(Protocol):
    """Where artifacts are measured: latency one at a time, and on a remote device anything.

    ``is_remote``: this machine may work meanwhile. ``where`` is the same for two that are one machine.
    ``fingerprint`` tells what stored measurements hold for; another board, or another version of a library there,
    measures anew. ``about`` is what results.json says of a remote device under ``environment.device``, in the names of
    ``environment`` itself; None for this machine.
    """

    @property
    def is_remote(self) -> bool: ...

    @property
    def where(self) -> str: ...

    @property
    def fingerprint(self) -> Mapping[str, Any]: ...

    @property
    def about(self) -> Mapping[str, Any] | None: ...

    def memory_available(self) -> int | None:
        """Bytes, as last known; None where the device does not tell."""

    def measure(self, request: Mapping[str, Any], *, workdir: Path, report: Report = silent) -> ProbeResult:
        """Run ``objectives.probe`` on a request, whose artifacts lie on this machine.

        Raises:
            ProbeError: the artifact could not be measured; another one may be.
            DeviceError: nothing can be measured there, for now or at all.
        """
        ...

    def stop(self) -> None:
        """End the measurement that another thread waits for, which fails, and make no further one."""
        ...
