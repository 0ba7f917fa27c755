"""A device over SSH as the target: the artifact goes there, the probe runs there, its events come back.

One connection a measurement. It holds the device's lock for as long as it lasts, so that uploading disturbs nobody
who measures there, and two machines do not measure at once. What breaks is made again from its start; only files that
were sent go on from where they were.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from autotune.errors import DeviceError, ProbeError
from autotune.pipeline.progress import Report, silent
from autotune.targets.address import Place
from autotune.targets.agent import Agent, Refused, agent_on
from autotune.targets.checks import checks, require
from autotune.targets.connection import Lost, run, who
from autotune.targets.transfer import Artifact, describe, send
from objectives.fresh import abnormal_exit, event_of, whole
from objectives.result import Collector, ProbeFailure, ProbeResult

T = TypeVar("T")
#: Seconds between tries: a board takes a minute or two to start. Progress begins them anew.
PAUSES = (2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 60.0, 60.0, 60.0)
#: A device that is lost so often while it measures one artifact is brought down by it.
_LOSSES = 3
Say = Callable[[str], None]


class Ssh:
    """An opened device: `open_ssh` makes it. ``say`` is given sentences for the user."""

    is_remote = True

    def __init__(self, place: Place, facts: Mapping[str, Any], say: Say, pauses: Sequence[float] = PAUSES) -> None:
        self._place, self._say, self._pauses = place, say, pauses
        self._now: Mapping[str, Any] = facts["now"]
        self._sent = 0
        self._stopped = threading.Event()
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self.where = str(place.address)
        self.fingerprint: Mapping[str, Any] = facts["lasting"]
        self.about: Mapping[str, Any] | None = {"host": place.name, **facts["lasting"]}

    def memory_available(self) -> int | None:
        known = self._now["memory_available_mb"]
        return None if known is None else int(known) * 1_000_000

    def measure(self, request: Mapping[str, Any], *, workdir: Path, report: Report = silent) -> ProbeResult:
        """See `autotune.targets.device.Device`. Connections that break are made again, within the pauses."""
        losses = 0

        async def attempt() -> ProbeResult:
            nonlocal losses
            async with agent_on(self._place) as agent:
                self._require_same(agent.hello["facts"])
                await take_lock(agent, self._say)
                artifacts = await asyncio.to_thread(_artifacts, request)
                folders = await self._placed(agent, artifacts, report)
                losses += 1
                result = await self._probed(agent, _there(request, folders), artifacts, report)
                losses -= 1
                return result

        return self._again(attempt, lambda: losses)

    def stop(self) -> None:
        self._stopped.set()
        if running := self._running:
            loop, task = running
            with suppress(RuntimeError):  # it has come to its end just now
                loop.call_soon_threadsafe(task.cancel)

    async def _stoppable(self, work: Coroutine[Any, Any, T]) -> T:
        """``work``, which `stop` cancels."""
        task = asyncio.current_task()
        assert task
        self._running = asyncio.get_running_loop(), task
        try:
            if self._stopped.is_set():
                task.cancel()
            return await work
        finally:
            self._running = None

    def _again(self, attempt: Callable[[], Coroutine[Any, Any, T]], losses: Callable[[], int]) -> T:
        left, name = list(self._pauses), self._place.name
        while True:
            before = self._sent
            try:
                return run(self._stoppable(attempt()))
            except Lost as lost:
                if losses() >= _LOSSES:
                    raise ProbeError(f"{name}: lost {losses()} times while it measured this artifact ({lost}); "
                                     "accepted: one that its memory and its power supply bear") from lost
                if self._sent > before:
                    left = list(self._pauses)
                if not left:
                    raise DeviceError(
                        name, "connection", f"{lost}; {len(self._pauses)} further tries within "
                        f"{sum(self._pauses) / 60:.0f} minutes failed too",
                        "a device that can be reached; the same command goes on from here") from lost
                pause = left.pop(0)
                self._say(f"{name}: {lost}; trying again in {pause:.0f} s")
                if self._stopped.wait(pause):
                    raise ProbeError(f"{name}: measuring was ended") from lost

    def _require_same(self, facts: Mapping[str, Any]) -> None:
        """What was measured before must go with what is measured now."""
        self._now, found = facts["now"], facts["lasting"]
        differs = [key for key, value in self.fingerprint.items() if found.get(key) != value]
        if differs:
            told = "; ".join(f"{key}: {found.get(key)} instead of {self.fingerprint[key]}" for key in differs)
            raise DeviceError(self._place.name, ", ".join(differs), f"changed while it was measured on: {told}",
                              "the device as it was; or another --out, where all is measured anew")

    async def _placed(self, agent: Agent, artifacts: Sequence[Artifact], report: Report) -> dict[Path, str]:
        """Each artifact's folder on the device, by its folder here."""
        files = {artifact.name: artifact.files for artifact in artifacts}
        sources = {sha256: path for artifact in artifacts for sha256, path in artifact.sources().items()}
        try:
            needed = await agent.ask("need", artifacts=files, quota=self._place.quota)
            self._require_room(needed["room"], artifacts)
            for again in (True, False):
                await self._send(agent, sources, needed, report)
                damaged = [sha256 for sha256 in needed["send"] if not (await agent.ask("take", sha256=sha256))["ok"]]
                if not damaged:
                    break
                if not again:
                    raise DeviceError(self._place.name, "disk", f"{len(damaged)} files arrived damaged twice",
                                      "a disk that keeps what is written to it")
                needed["send"] = {sha: {"size": needed["send"][sha]["size"], "offset": 0} for sha in damaged}
            placed = (await agent.ask("place", artifacts=files))["folders"]
        except Refused as refused:
            raise DeviceError(self._place.name, "disk", str(refused), "a disk that can be written") from refused
        return {artifact.folder: placed[artifact.name] for artifact in artifacts}

    async def _send(
        self, agent: Agent, sources: Mapping[str, Path], needed: Mapping[str, Any], report: Report
    ) -> None:
        def sending(done: float, total: float, note: str = "") -> None:
            self._sent += 1
            report(done, total, note)

        try:
            await send(agent.sftp, sources, needed["send"], needed["to"], sending)
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection) as error:
            raise Lost(f"the connection broke while an artifact was sent: {error.reason}") from error
        except asyncssh.SFTPError as error:
            facts = (await agent.ask("facts"))["facts"]["now"]
            raise ProbeError(f"{self._place.name}: disk: writing failed ({error.reason}) with "
                             f"{facts['disk_free_mb']} MB free; accepted: room for the artifact") from error

    def _require_room(self, room: Mapping[str, Any], artifacts: Sequence[Artifact]) -> None:
        for gone in room["removed"]:
            self._say(f"{self._place.name}: removed an older artifact to make room ({gone[:8]})")
        if room["short"] is None:
            return
        sizes = " and ".join(f"{artifact.size / 1e6:.0f} MB" for artifact in artifacts)
        if room["short"] == "quota":
            found = f"artifacts of {sizes} are more than the quota of {self._place.quota / 1e6:.0f} MB"
            accepted = "a smaller artifact, or a larger quota in the devices file"
        else:
            found = (f"{room['needed'] / 1e6:.0f} MB are to be sent, and {room['free'] / 1e6:.0f} MB are free after "
                     "everything of ours was removed")
            accepted = "room for the artifact and 200 MB that stay free"
        raise ProbeError(f"{self._place.name}: disk: {found}; accepted: {accepted}")

    async def _probed(
        self, agent: Agent, request: Mapping[str, Any], artifacts: Sequence[Artifact], report: Report
    ) -> ProbeResult:
        collector = Collector(tuple(request["tasks"]), report)
        agent.tell("probe", request=request)
        try:
            while (event := event_of(await agent.line()))["event"] != "exit":
                if event["event"] == "failed":
                    raise ProbeFailure(f"the probe was not started: {event['reason']}")
                collector.feed(event)
            self._now = event["facts"]["now"]
            why = abnormal_exit(event["code"])
            if why and event["code"] == -9:
                sizes = " and ".join(f"{artifact.size / 1e6:.0f}" for artifact in artifacts)
                free = f"{self._now['memory_available_mb']} MB of {self.fingerprint['memory_gb']} GB"
                why += f"; it was to open artifacts of {sizes} MB, and without them {free} are free there"
            result = whole(collector, why, event["said"])
        except ProbeFailure as failure:
            raise ProbeError(f"{self._place.name}: {failure}") from failure
        return replace(result, facts={**result.facts, "host": self._place.name})


def open_ssh(place: Place, provider: str, say: Say, pauses: Sequence[float] = PAUSES) -> Ssh:
    """Connect once and look at what is there.

    Raises:
        DeviceError: it cannot be reached, or nothing can be measured there.
    """
    async def look() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        async with agent_on(place) as agent:
            return agent.hello["facts"], await agent.ask("providers")

    facts, providers = once(place, look)
    found = checks(place.name, facts, provider, providers)
    require(place.name, found)
    for check in found:
        if check.state in ("warning", "note"):
            say(f"{place.name}: {check.name}: {check.found}; better: {check.accepted}")
    return Ssh(place, facts, say, pauses)


def once(place: Place, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """One try. Raises DeviceError where the device is not reached, as someone waits for the answer."""
    try:
        return run(work())
    except Lost as lost:
        raise DeviceError(place.name, "connection", str(lost),
                          f"a device that answers: {place.address.command('true')}") from lost


async def take_lock(agent: Agent, say: Say) -> None:
    answer = await agent.ask("lock", who=who())
    if answer["event"] == "waiting":
        by = f" by {answer['who']}" if answer["who"] else ""
        say(f"{agent.place.name}: waiting for another measurement there{by} to end")
        await agent.event()


def _artifacts(request: Mapping[str, Any]) -> list[Artifact]:
    """Every artifact that a request names, each once."""
    return [describe(Path(folder)) for folder in dict.fromkeys(_named(request))]


def _named(request: Mapping[str, Any]) -> list[str]:
    beside = [task["reference"]["artifact"] for task in request["tasks"] if task.get("reference")]
    return [str(request["artifact"]), *map(str, beside)]


def _there(request: Mapping[str, Any], folders: Mapping[Path, str]) -> dict[str, Any]:
    """The request with the artifacts' folders as they are on the device."""

    def moved(task: Mapping[str, Any]) -> dict[str, Any]:
        if not task.get("reference"):
            return dict(task)
        reference = task["reference"]
        return {**task, "reference": {**reference, "artifact": folders[Path(reference["artifact"])]}}

    return {**request, "artifact": folders[Path(request["artifact"])], "tasks": list(map(moved, request["tasks"]))}
