"""``size_mb``: what the artifact takes on the device's disk."""

from __future__ import annotations

from pathlib import Path

from objectives.base import MB


def size_mb(artifact: Path) -> float:
    """``size_bytes`` in MB of 10^6 bytes."""
    return size_bytes(artifact) / MB


def size_bytes(artifact: Path) -> int:
    """Bytes of every file under the artifact's folder; links count as what they name.

    Raises FileNotFoundError when there is no such folder.
    """
    if not artifact.is_dir():
        raise FileNotFoundError(f"no artifact folder at {artifact}")
    return sum(f.stat().st_size for f in artifact.rglob("*") if f.is_file())
