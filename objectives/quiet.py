"""How quiet the machine is while something is timed: what others take of its cores, its clock and its heat.

All of it is read from the operating system's counters, none of it from the timings themselves: what is left out
because the machine was busy is then no choice of fast requests over slow ones.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

#: Others may take so many cores, all of them together, before what was timed meanwhile counts as disturbed.
LIMIT_CORES = 0.15
#: The kernel counts in ticks of 10 ms; so many seconds of a difference between two readings may be rounding.
ROUNDING_S = 0.02

#: Waiting threads of ONNX Runtime spin for some tens of milliseconds before they sleep.
_STEP_S = 0.01
_ASLEEP_SHARE = 0.1
_SETTLE_CAP_S = 0.5

_BUSY = ("user", "nice", "system", "irq", "softirq")  # guests are in user and nice
_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal", "acpitz")


@dataclass(frozen=True)
class Counters:
    """What has added up until an instant ``at``, in seconds of processor time: of everybody on all cores, of this
    process, and what a hypervisor gave to others (None where nobody tells). ``throttled`` counts how often cores
    were slowed down for their heat."""

    at: float
    busy: float
    own: float
    steal: float | None
    throttled: int | None


@dataclass(frozen=True)
class Load:
    """What happened beside this process in ``seconds`` of wall time, as the mean number of cores taken."""

    seconds: float
    outside_cores: float
    steal_cores: float | None
    throttled: int | None

    @property
    def disturbed(self) -> bool:
        taken = (self.outside_cores + (self.steal_cores or 0.0)) * self.seconds
        return taken > LIMIT_CORES * self.seconds + ROUNDING_S


def counters() -> Counters:
    times = psutil.cpu_times()
    steal = getattr(times, "steal", None)
    return Counters(
        time.perf_counter(), sum(getattr(times, name, 0.0) for name in _BUSY), time.process_time(),
        None if steal is None else float(steal), _throttle_count(),
    )


def between(start: Counters, end: Counters) -> Load:
    seconds = end.at - start.at
    outside = (end.busy - start.busy) - (end.own - start.own)
    steal = None if start.steal is None or end.steal is None else max(0.0, end.steal - start.steal) / seconds
    throttled = None if start.throttled is None or end.throttled is None else end.throttled - start.throttled
    return Load(seconds, max(0.0, outside) / seconds, steal, throttled)


def settle() -> float:
    """Wait until this process's own threads sleep, half a second at most; returns the seconds waited."""
    began = time.perf_counter()
    while time.perf_counter() - began < _SETTLE_CAP_S:
        used, since = time.process_time(), time.perf_counter()
        time.sleep(_STEP_S)
        if time.process_time() - used < _ASLEEP_SHARE * (time.perf_counter() - since):
            break
    return time.perf_counter() - began


def mhz() -> float | None:
    """The mean of the cores' present frequencies; None where the system does not tell."""
    found = _or_none(psutil, "cpu_freq")
    return float(found.current) if found and found.current else None


def temperature_c() -> float | None:
    """The hottest reading of the processor's own sensor; None where there is none."""
    sensors = _or_none(psutil, "sensors_temperatures") or {}
    name = next((name for name in _SENSORS if sensors.get(name)), None)
    return None if name is None else max(float(reading.current) for reading in sensors[name])


def _or_none(module: Any, function: str) -> Any:
    """What psutil's ``function`` gives; it lacks some on some systems, and fails there where a file is not as
    it expects."""
    if not sys.platform.startswith("linux") or not hasattr(module, function):
        return None
    try:
        return getattr(module, function)()
    except (OSError, RuntimeError, ValueError, NotImplementedError):
        return None


def _throttle_count() -> int | None:
    counts = [_number(file) for file in Path("/sys/devices/system/cpu").glob(
        "cpu[0-9]*/thermal_throttle/core_throttle_count")]
    told = [count for count in counts if count is not None]
    return sum(told) if told else None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
