"""``peak_rss_mb``: the most memory this process has held at once."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from objectives.base import MB


def peak_rss_mb() -> float:
    """Peak resident set size of the calling process, in MB of 10^6 bytes.

    On Linux from ``VmHWM`` and not from ``getrusage``: across fork and exec the kernel carries
    ``ru_maxrss`` over, so a probe started by a large process would report its parent's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / MB
    return _peak_bytes_elsewhere() / MB


def _peak_bytes_elsewhere() -> int:
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, the others KiB
