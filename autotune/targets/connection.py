"""An SSH connection to a device, by key alone, to a host whose key is known; and what is said where there is none."""

from __future__ import annotations

import asyncio
import getpass
import socket
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from autotune.errors import DeviceError
from autotune.targets.address import Address, Place

T = TypeVar("T")
_CONNECT_S = 20.0
#: A peer that answers nothing for so long is gone, seconds between questions and how many.
_KEEPALIVE_S, _KEEPALIVES = 5.0, 4
#: It tells of every channel and command otherwise, as soon as some other library configures logging.
asyncssh.set_log_level("WARNING")


class Lost(Exception):
    """The device cannot be reached just now: it is switched off or starting, or the network is down. Try again."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """``work`` to its end on an event loop of its own; an interrupt ends it at its next wait.

    In a thread of its own where this one already runs a loop, as a notebook's does.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    began: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

    async def told() -> T:
        task = asyncio.current_task()
        assert task
        began.set_result((asyncio.get_running_loop(), task))
        return await work

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(asyncio.run, told())
        try:
            return done.result()
        except BaseException:
            if not done.done():
                loop, task = began.result()
                loop.call_soon_threadsafe(task.cancel)
            raise


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A connection for the block. What ends it early comes out as ``Lost``.

    ~/.ssh/config, key files and ssh-agent are used as ``ssh`` uses them; passwords never are.

    Raises:
        DeviceError: trying again would not help: the host's key is not the known one, ours is not accepted, or what
            the block asked of SFTP was refused.
        Lost: it may.
    """
    connection = await _connect(place)
    try:
        async with connection:
            yield connection
    except (asyncssh.DisconnectError, asyncssh.ChannelOpenError, ConnectionError, asyncssh.SFTPConnectionLost,
            asyncssh.SFTPNoConnection) as error:
        raise Lost(f"the connection broke: {_text(error)}") from error
    except asyncssh.SFTPError as error:
        raise DeviceError(place.name, "files", f"SFTP in {place.folder}: {_text(error)}",
                          "an SSH server with SFTP, and a folder there that can be written") from error


async def _connect(place: Place) -> asyncssh.SSHClientConnection:
    address = place.address
    options = await _options(place)
    try:
        return await asyncssh.connect(address.host, options=options)
    except asyncssh.HostKeyNotVerifiable:
        raise await _untrusted(place, options) from None
    except asyncssh.PermissionDenied:
        user = options.username
        raise DeviceError(
            place.name, "login", f"no key of {user}'s was accepted (ssh-agent's, and the files of ~/.ssh that have no "
            "passphrase; passwords are never used)",
            f"a key of yours in {user}'s authorized_keys there: {_copy_id(address)}") from None
    except socket.gaierror as error:
        raise Lost(f"the name {options.host or address.host} is not known: {_text(error)}") from None
    except TimeoutError:
        raise Lost(f"no answer within {_CONNECT_S:.0f} s") from None
    except (asyncssh.Error, OSError) as error:
        raise Lost(_text(error)) from None


async def _options(place: Place) -> asyncssh.SSHClientConnectionOptions:
    """What ``ssh`` would use, less what is not safe or not for a program."""
    address = place.address
    given: dict[str, Any] = {}
    if address.user:
        given["username"] = address.user
    if address.port:
        given["port"] = address.port
    try:
        options: asyncssh.SSHClientConnectionOptions = await asyncssh.SSHClientConnectionOptions.construct(
            host=address.host, config=(), password_auth=False, kbdint_auth=False, ignore_encrypted=True,
            connect_timeout=_CONNECT_S, login_timeout=_CONNECT_S, keepalive_interval=_KEEPALIVE_S,
            keepalive_count_max=_KEEPALIVES, **given)
    except (asyncssh.Error, OSError, ValueError) as error:
        raise DeviceError(place.name, "~/.ssh", _text(error), "a config and keys that ssh reads") from None
    if options.known_hosts is None:
        raise DeviceError(place.name, "~/.ssh/config", "host key checking is switched off for this host",
                          "a host whose key is checked: remove UserKnownHostsFile none there")
    return options


async def _untrusted(place: Place, options: asyncssh.SSHClientConnectionOptions) -> DeviceError:
    """The two that must not be taken for each other: a host that is new, and one whose key has changed."""
    address = place.address
    shown = await _presented(options)
    if _known(options):
        port = options.port or 22
        name = f"[{options.host}]:{port}" if port != 22 else options.host
        return DeviceError(
            place.name, "host key", f"it has CHANGED: the device shows {shown}, and known_hosts holds another. It was "
            "set up anew, or someone stands in between; nothing was sent",
            f"the known key. If you know why it changed: ssh-keygen -R '{name}', then {address.command()} and compare")
    return DeviceError(
        place.name, "host key", f"{shown} is in no known_hosts file; nothing was sent",
        f"a host that you have connected to: run {address.command()} once, and compare the key with the device's")


async def _presented(options: asyncssh.SSHClientConnectionOptions) -> str:
    try:
        key = await asyncssh.get_server_host_key(options.host, options.port, config=None)
    except (asyncssh.Error, OSError):
        key = None
    return f"{key.get_algorithm()} {key.get_fingerprint()}" if key else "a key"


def _known(options: asyncssh.SSHClientConnectionOptions) -> bool:
    """Whether any key of the host is known."""
    files = options.known_hosts or str(Path.home() / ".ssh" / "known_hosts")
    try:
        address = socket.gethostbyname(options.host)
        found = asyncssh.match_known_hosts(files, options.host, address, options.port or 22)
    except (OSError, ValueError):
        return False
    return bool(found[0]) or bool(found[1])


def _copy_id(address: Address) -> str:
    port = f"-p {address.port} " if address.port else ""
    return f"ssh-copy-id {port}{f'{address.user}@' if address.user else ''}{address.host}"


def who() -> str:
    """Tells whoever waits for a device who measures on it."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "someone"
    return f"{user}@{socket.gethostname()}"


def _text(error: BaseException) -> str:
    text = error.reason if isinstance(error, asyncssh.Error) else getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__
