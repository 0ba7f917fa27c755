"""The study's further devices beside its target: each with a name, and those that are remote measured side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from autotune.errors import AutotuneError, DeviceError, StageError
from autotune.questions import Target, target_fingerprint
from autotune.study_file import DeviceSection, StudyFile
from autotune.targets.address import LOCAL
from autotune.targets.device import Device
from autotune.targets.opening import open_device
from autotune.workers import Workers
from objectives.base import on_device, split_device

T = TypeVar("T")
_Outcome = tuple[str, T | AutotuneError]


@dataclass(frozen=True)
class Site:
    """Where artifacts are measured. ``name`` is the further device's in the study, empty for the target;
    ``fingerprint`` is what of it stored measurements hold for."""

    name: str
    device: Device
    target: Target
    fingerprint: Mapping[str, Any]

    def key(self, plain: str) -> str:
        """What a value of ``latency_ms.p95`` measured here is called."""
        return on_device(plain, self.name)

    def asked(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Of a study's keys those with values from here, without the device's name; all others are the target's."""
        return tuple(plain for plain, device in map(split_device, keys) if device == self.name)

    def titled(self, text: str) -> str:
        """``measuring int8-b32 on pi``."""
        return f"{text} on {self.name}" if self.name else text


def site(name: str, device: Device, target: Target, machine: Mapping[str, Any]) -> Site:
    """``machine`` is what of the device a stored measurement depends on."""
    return Site(name, device, target, target_fingerprint(target, machine))


def open_sites(
    devices: Mapping[str, DeviceSection], say: Callable[[str], None], warn: Callable[[str], None], workers: Workers
) -> tuple[Site, ...]:
    """The study's further devices, in its order. Raises what `open_device` raises."""
    found = []
    for name, asked in devices.items():
        try:
            device = open_device(asked.host, asked.python, asked.provider, say, warn, workers, name)
        except AutotuneError as error:
            raise named(name, error) from error
        target = Target(asked.provider, asked.provider_options, asked.threads)
        found.append(site(name, device, target, device.fingerprint))
    return tuple(found)


def about(sites: Sequence[Site]) -> dict[str, Any]:
    """What results.json says of the devices, by name: the settings there, and the board as far as it is another one."""
    return {each.name: {"host": each.device.where, **(each.device.about or {}), "provider": each.target.provider,
                        "threads": each.target.threads} for each in sites}


def side_by_side(sites: Sequence[Site], work: Callable[[Site], T]) -> dict[str, T]:
    """``work`` on each site as `tried` does it, by the site's name. Raises the first site's error."""
    found: dict[str, T] = {}
    for name, outcome in tried(sites, work).items():
        if isinstance(outcome, AutotuneError):
            raise outcome
        found[name] = outcome
    return found


def tried(sites: Sequence[Site], work: Callable[[Site], T]) -> dict[str, T | AutotuneError]:
    """``work`` on each site: what it gave, or the error that it raised, by the site's name. This machine comes first
    and alone; then the remote devices at the same time, those that are one machine one after the other.

    An interrupt ends the measurements that run.
    """
    here = [each for each in sites if not each.device.is_remote]
    groups: dict[str, list[Site]] = {}
    for each in sites:
        if each.device.is_remote:
            groups.setdefault(each.device.where, []).append(each)
    outcomes = dict(_in_turn(here, work))
    if len(groups) == 1:
        outcomes |= _in_turn(next(iter(groups.values())), work)
    elif groups:
        outcomes |= _at_once(list(groups.values()), work)
    return {each.name: outcomes[each.name] for each in sites}


def hosts(study: StudyFile) -> dict[str, str]:
    """Where artifacts are measured, as the study writes it: by the device's name, the target's empty."""
    return {"": study.target.host, **{name: device.host for name, device in (study.devices or {}).items()}}


def in_sequence(times: Iterable[tuple[str, float]]) -> float:
    """How long `tried` takes, of each device's host, as the study writes it, and its own time there."""
    by_host: dict[str, float] = {}
    for host, took in times:
        by_host[host] = by_host.get(host, 0.0) + took
    here = by_host.pop(LOCAL, 0.0)
    return here + max(by_host.values(), default=0.0)


def named(device: str, error: AutotuneError) -> AutotuneError:
    """The error with the name of the device that it is of; the target has none."""
    if not device:
        return error
    if isinstance(error, StageError):
        told = StageError(f"on {device}: {error.reason}")
        told.stage = error.stage
        return told
    if isinstance(error, DeviceError):
        found = error.problem
        return DeviceError(f"{device} ({found.file})" if device != found.file else device, found.where, found.found,
                           found.accepted)
    return error


def _in_turn(sites: Sequence[Site], work: Callable[[Site], T]) -> list[_Outcome[T]]:
    outcomes: list[_Outcome[T]] = []
    for each in sites:
        try:
            outcomes.append((each.name, work(each)))
        except AutotuneError as error:
            outcomes.append((each.name, named(each.name, error)))
    return outcomes


def _at_once(groups: Sequence[Sequence[Site]], work: Callable[[Site], T]) -> list[_Outcome[T]]:
    with ThreadPoolExecutor(len(groups), thread_name_prefix="device") as threads:
        running: list[Future[list[_Outcome[T]]]] = [threads.submit(_in_turn, group, work) for group in groups]
        try:
            wait(running)
            return [outcome for future in running for outcome in future.result()]
        except BaseException:
            for group in groups:
                for each in group:
                    each.device.stop()
            raise
