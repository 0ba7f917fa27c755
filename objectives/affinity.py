"""Keeps the process on as many cores as it has threads, so that the scheduler does not move it about."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_CORES = Path("/sys/devices/system/cpu")


def pin(threads: int) -> list[int] | None:
    """Bind this process, and the threads that it starts from now on, to ``threads`` of the cores it may use.

    Returns them; None where it may use no more than that anyway, or the system has no such call (only Linux has).
    """
    if sys.platform != "linux":
        return None
    usable = os.sched_getaffinity(0)
    if threads >= len(usable):
        return None
    chosen = best(usable, threads)
    try:
        os.sched_setaffinity(0, chosen)
    except OSError:
        return None
    return chosen


def best(usable: set[int], count: int, cores: Path = _CORES) -> list[int]:
    """One hardware thread of each physical core before the second of any, big cores before small ones."""

    def rank(core: int) -> tuple[int, int, int]:
        folder = cores / f"cpu{core}"
        siblings = _list(_text(folder / "topology/thread_siblings_list")) & usable
        strength = _text(folder / "cpu_capacity") or _text(folder / "cpufreq/cpuinfo_max_freq") or "0"
        return sum(other < core for other in siblings), -int(strength), core

    return sorted(sorted(usable, key=rank)[:count])


def _list(text: str) -> set[int]:
    """``0,4-6`` → {0, 4, 5, 6}."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
