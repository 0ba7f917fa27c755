"""A study's devices: hosts that must be known, and ``KEY@NAME`` in objectives and limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autotune.errors import ConfigError, Problem, nearest
from autotune.targets.address import LOCAL
from autotune.targets.devices import find_place
from objectives.base import OBJECTIVES, PER_DEVICE, name_of, on_device, split_device


def device_problem(key: str, devices: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(found, accepted) where a key names a device that the study has not, or is none that a device has a value of.

    ``key`` without its device is known to be an objective.
    """
    plain, device = split_device(key)
    if plain == key:
        return
    if device not in devices:
        names = ", ".join(on_device(plain, name) for name in devices) or "the study names no devices"
        yield (f"{key}: no device {device!r}{nearest(device, devices)}",
               f"{plain}, which is the target's; or one of the study's devices: {names}")
    if OBJECTIVES[name_of(key)].name not in PER_DEVICE:
        close = nearest(name_of(key), PER_DEVICE)
        yield (f"{key}: {name_of(key)} has no value of its own on a device{close}",
               f"{plain}; with @{device}: {', '.join(PER_DEVICE)}")


def host_problems(target: Any, devices: Mapping[Any, Any], file: str) -> list[Problem]:
    """What is wrong with the hosts of the target and the further devices, without connecting to any."""
    sections = {"target": target, **{f"devices.{name}": about for name, about in devices.items()}}
    return [p for where, about in sections.items() for p in _host(about, file, f"{where}.host")]


def _host(section: Any, file: str, where: str) -> list[Problem]:
    host = section.get("host", LOCAL) if isinstance(section, Mapping) else LOCAL
    if host == LOCAL or not isinstance(host, str) or not host:
        return []
    try:
        find_place(host, None, file=file, where=where)
    except ConfigError as error:
        return list(error.problems)
    return []
