"""The agent on a device (`objectives.device.agent`), spoken to over one connection."""

from __future__ import annotations

import asyncio
import json
import posixpath
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncssh

from autotune.errors import DeviceError
from autotune.targets.address import Place
from autotune.targets.connection import Lost, connected
from autotune.targets.transfer import drop_package, package, put_package

#: As the device's code says `-P`; its own modules must not be taken from the folder that it happens to be in.
OLDEST_PYTHON = (3, 11)
_BEAT_S = 10.0
_COMMAND_NOT_FOUND = 127


class Refused(Exception):
    """The agent could not do what it was told; the message is its reason."""


class Agent:
    """Asks and is answered; ``hello`` is what it said when it started."""

    def __init__(
        self, place: Place, connection: asyncssh.SSHClientConnection, process: asyncssh.SSHClientProcess[bytes],
        sftp: asyncssh.SFTPClient,
    ) -> None:
        self.place, self.connection, self.sftp = place, connection, sftp
        self.hello: Mapping[str, Any] = {}
        self._process = process
        self._pending = b""

    async def greet(self) -> None:
        """Wait for its first event; what a shell's start-up files print before it is passed over."""
        while not self.hello:
            line = await self.line()
            if line.startswith('{"event": "ready"'):
                self.hello = json.loads(line)

    async def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """The next event after a command. Raises Refused where the agent could not carry it out."""
        self.tell(do, **fields)
        return await self.event()

    def tell(self, do: str, **fields: Any) -> None:
        self._process.stdin.write((json.dumps({"do": do, **fields}, ensure_ascii=False) + "\n").encode())

    async def event(self) -> dict[str, Any]:
        """Raises Lost where the agent is gone."""
        event: dict[str, Any] = json.loads(await self.line())
        if event["event"] == "failed":
            raise Refused(f"{event['do']}: {event['reason']}")
        return event

    async def line(self) -> str:
        """One whole line; half a line is that of an agent, or a connection, that has died."""
        while b"\n" not in self._pending:
            chunk = await self._process.stdout.read(1 << 16)
            if not chunk:
                raise Lost(await self._last_words())
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace")

    async def _last_words(self) -> str:
        said = (await self._process.stderr.read()).decode(errors="replace").split("\n")
        told = " | ".join(line.strip() for line in said if line.strip())[-400:]
        return f"the agent on the device ended{f'; it last said: {told}' if told else ''}"


@asynccontextmanager
async def agent_on(place: Place) -> AsyncIterator[Agent]:
    """A running agent for the block, on a connection of its own; both end with it.

    Raises:
        DeviceError: there is no interpreter that can run it.
        Lost: the device is not reached, or was lost within the block.
    """
    async with connected(place) as connection, connection.start_sftp_client() as sftp:
        home = str(await sftp.realpath("."))
        root = posixpath.join(home, place.folder.removeprefix("~/"))
        python = _interpreter(place, home, root)
        for again in (True, False):
            folder = await put_package(sftp, root)
            command = f"exec env PYTHONPATH={shlex.quote(folder)} {shlex.quote(python)}"
            async with connection.create_process(
                f"{command} -P -m objectives.device.agent {shlex.quote(root)}", encoding=None
            ) as process:
                agent = Agent(place, connection, process, sftp)
                try:
                    await agent.greet()
                except Lost as lost:
                    raise await _why_not(connection, place, python, str(lost)) from lost
                if agent.hello["code"] == package()[0]:
                    async with _beating(agent):
                        yield agent
                    return
            if again:
                await drop_package(sftp, folder)
        raise DeviceError(place.name, folder, "damaged: what was sent twice is not what was read back",
                          "a disk that keeps what is written to it")


@asynccontextmanager
async def _beating(agent: Agent) -> AsyncIterator[None]:
    """Tell the agent now and then that we are there: it ends, and frees the device, when it hears nothing."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            agent.tell("beat")

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()


def venv_python(root: str) -> str:
    """The interpreter of the environment that ``autotune device setup`` makes."""
    return posixpath.join(root, "venv", "bin", "python")


def _interpreter(place: Place, home: str, root: str) -> str:
    """A bare name is looked up as the device's shell does; ``~/x`` is in the user's home."""
    if place.python is None:
        return venv_python(root)
    return posixpath.join(home, place.python.removeprefix("~/")) if "/" in place.python else place.python


async def _why_not(connection: asyncssh.SSHClientConnection, place: Place, python: str, said: str) -> Exception:
    """Why no agent came up: no such interpreter, one that is too old, or something of the moment."""
    asked = await connection.run(f"exec {shlex.quote(python)} -c 'import sys; print(*sys.version_info[:3])'")
    oldest = ".".join(map(str, OLDEST_PYTHON))
    accepted = f"Python {oldest} or newer, of which autotune device setup {place.name} makes an environment"
    words = str(asked.stdout or "").split()
    if asked.exit_status == _COMMAND_NOT_FOUND or len(words) != 3 or not all(word.isdigit() for word in words):
        return DeviceError(place.name, "python", f"{python} is not there, or is no Python", accepted)
    if tuple(map(int, words))[:2] < OLDEST_PYTHON:
        return DeviceError(place.name, "python", f"{python} is Python {'.'.join(words)}", accepted)
    return Lost(said)
