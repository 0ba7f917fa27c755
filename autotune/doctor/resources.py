"""Cores, memory, what a container allows of them, and what others take right now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from autotune.doctor.finding import Finding
from objectives.machine import machine
from objectives.quiet import LIMIT_CORES, Load, between, counters

TOPIC = "machine"
#: A process with PyTorch and a small model in it: less than this, and the kernel may kill it.
_LEAST_MEMORY = 2e9
_MUCH_SWAP = 0.5e9
_LISTEN_S = 1.0
_WHO = "ps -eo pid,pcpu,rss,args --sort=-{} | head"


@dataclass(frozen=True)
class Allowance:
    """What control groups allow this process: cores, and bytes of memory with those in use; None for no limit."""

    cores: float | None
    memory: int | None
    used: int | None = None


def resources(root: Path = Path("/")) -> list[Finding]:
    """``root`` is where proc and sys are."""
    found = machine()
    allowed = allowance(root)
    usable = int(found["cores_usable"] or 1)
    return [
        cores(found["cores_physical"], int(found["cores_logical"] or usable), usable, allowed.cores),
        memory(psutil.virtual_memory().total, psutil.virtual_memory().available, allowed),
        swap(psutil.swap_memory().total, psutil.swap_memory().used),
    ]


def cores(physical: int | None, logical: int, usable: int, allowed: float | None) -> Finding:
    told = f"{physical} physical, {logical} logical" if physical else f"{logical} logical"
    found = told if usable == logical else f"{told}, of which this process may use {usable}"
    if allowed is not None and allowed < usable:
        return Finding(TOPIC, "cores", f"{found}; its control group allows {allowed:g} of processor time", "warning",
                       "more threads than that are halted for a part of every tenth of a second: latencies jump",
                       f"threads: {max(1, int(allowed))} in the study's target, or docker run --cpuset-cpus")
    return Finding(TOPIC, "cores", found, "ok" if usable == logical else "note")


def memory(total: int, available: int, allowed: Allowance) -> Finding:
    if allowed.memory is not None and allowed.memory < total:
        found = f"{allowed.memory / 1e9:.1f} GB allowed by its control group"
        free = min(available, allowed.memory - (allowed.used or 0))
    else:
        found, free = f"{total / 1e9:.1f} GB", available
    found += f", {free / 1e9:.1f} GB free"
    if free < _LEAST_MEMORY:
        return Finding(TOPIC, "memory", found, "warning", "training or exporting may be killed for it",
                       "end what takes it: " + _WHO.format("rss"))
    return Finding(TOPIC, "memory", found)


def swap(total: int, used: int) -> Finding:
    if not total:
        return Finding(TOPIC, "swap", "none")
    found = f"{used / 1e9:.1f} of {total / 1e9:.1f} GB in use"
    if used > _MUCH_SWAP:
        return Finding(TOPIC, "swap", found, "warning", "what is swapped in during a measurement makes it slow",
                       "end what takes memory: " + _WHO.format("rss"))
    return Finding(TOPIC, "swap", found)


def load_now() -> Finding:
    """Listens for a second, during which this process sleeps."""
    start = counters()
    time.sleep(_LISTEN_S)
    return load(between(start, counters()))


def load(heard: Load) -> Finding:
    taken = heard.outside_cores + (heard.steal_cores or 0.0)
    found = f"others take {taken:.2f} cores"
    if heard.steal_cores and heard.steal_cores > LIMIT_CORES:
        found += f", {heard.steal_cores:.2f} of them other machines of the same host"
    if heard.disturbed:
        return Finding(TOPIC, "load", found, "warning",
                       f"a latency measured now is disturbed: more than {LIMIT_CORES:g} cores count as that",
                       "end or wait for what runs: " + _WHO.format("pcpu"))
    return Finding(TOPIC, "load", found)


def allowance(root: Path = Path("/")) -> Allowance:
    """The tightest limits of this process's control groups and those around them, of version 2 or 1."""
    groups = root / "sys/fs/cgroup"
    own = _own_groups(root / "proc/self/cgroup")
    unified = _chain(groups, own.get("", "/"))
    quotas = [_ratio(_text(g / "cpu.max")) for g in unified]
    quotas += [_ratio(f"{_text(g / 'cpu.cfs_quota_us')} {_text(g / 'cpu.cfs_period_us')}")
               for g in _chain(groups / "cpu", own.get("cpu", "/"))]
    limits = [(_number(g / "memory.max"), _number(g / "memory.current")) for g in unified]
    limits += [(_number(g / "memory.limit_in_bytes"), _number(g / "memory.usage_in_bytes"))
               for g in _chain(groups / "memory", own.get("memory", "/"))]
    told = [(limit, used) for limit, used in limits if limit is not None and limit < 1 << 60]  # 2**63 in v1: none
    tightest = min(told, key=lambda pair: pair[0] - (pair[1] or 0), default=(None, None))
    return Allowance(min((q for q in quotas if q is not None), default=None), *tightest)


def _own_groups(file: Path) -> dict[str, str]:
    """Controller → this process's group; ``""`` is version 2's one hierarchy."""
    found = {}
    for line in _text(file).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for name in controllers.split(","):
            found[name] = path
    return found


def _chain(top: Path, path: str) -> list[Path]:
    """The group's folder and those around it, up to ``top``. A path from outside a container names none here."""
    folder = top / path.lstrip("/")
    inside = folder if folder.is_relative_to(top) and ".." not in Path(path).parts else top
    return [p for p in (inside, *inside.parents) if p.is_relative_to(top)]


def _ratio(text: str) -> float | None:
    """``150000 100000`` → 1.5; None for ``max`` and -1."""
    parts = text.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts) or not int(parts[1]):
        return None
    return int(parts[0]) / int(parts[1])


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
