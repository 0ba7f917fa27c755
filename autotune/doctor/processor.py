"""The processor: instructions that kernels for few bits live on, and the governor of its clock."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from autotune.doctor.finding import Finding
from objectives.machine import machine

TOPIC = "machine"
#: What it is called here → names in /proc/cpuinfo, any of which is enough.
_X86: Mapping[str, tuple[str, ...]] = {
    "AVX2": ("avx2",), "AVX-512": ("avx512f",), "VNNI": ("avx512_vnni", "avx_vnni"),
    "AMX-INT8": ("amx_int8",), "bf16": ("avx512_bf16", "amx_bf16"),
}
_ARM: Mapping[str, tuple[str, ...]] = {
    "NEON": ("asimd", "neon"), "dotprod": ("asimddp",), "i8mm": ("i8mm",), "bf16": ("bf16",), "SVE": ("sve",),
}
_STEADY = ("performance",)


def processor(root: Path = Path("/"), architecture: str | None = None) -> list[Finding]:
    """``root`` is where proc and sys are; ``architecture`` is this machine's."""
    return [Finding(TOPIC, "processor", str(machine()["cpu"] or "not told")),
            instructions(root / "proc/cpuinfo", architecture or platform.machine()),
            *governor(root / "sys/devices/system/cpu")]


def instructions(cpuinfo: Path, architecture: str) -> Finding:
    """Which instructions that matter are there, as far as Linux tells."""
    known = _ARM if architecture.casefold() in ("aarch64", "arm64", "armv7l", "armv8l") else _X86
    flags = _flags(cpuinfo)
    if flags is None:
        return Finding(TOPIC, "instructions", "not told by this system")
    there = {name: any(flag in flags for flag in names) for name, names in known.items()}
    found = ", ".join(f"{name} {'yes' if has else 'no'}" for name, has in there.items())
    first = next(iter(known))
    if not there[first]:
        return Finding(TOPIC, "instructions", found, "warning",
                       f"without {first} int8 and int4 kernels fall back to slow ones",
                       "take another machine as the target, or judge speed by fp16 and fp32 alone")
    return Finding(TOPIC, "instructions", found)


def governor(cpus: Path) -> list[Finding]:
    """How the clock of each core is governed; nothing where the system does not tell."""
    found: set[str] = set()
    for file in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor"):
        try:
            found.add(file.read_text(encoding="utf-8").strip())
        except OSError:
            continue
    if not found:
        return []
    names = ", ".join(sorted(found))
    if found <= set(_STEADY):
        return [Finding(TOPIC, "governor", names)]
    return [Finding(TOPIC, "governor", names, "warning",
                    "the clock follows the load, so latencies vary and their intervals widen",
                    "sudo cpupower frequency-set -g performance")]


def _flags(cpuinfo: Path) -> set[str] | None:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.partition(":")[2].split() for line in lines
             if line.partition(":")[0].strip().casefold() in ("flags", "features")]
    return set(found[0]) if found else None
