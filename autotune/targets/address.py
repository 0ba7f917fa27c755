"""Where a device is: ``ssh://user@host:port``, and what else is needed to measure there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

ACCEPTED = "ssh://USER@HOST:PORT, where USER and PORT may be left to ~/.ssh/config"
#: A name from the devices file.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LOCAL = "local"


@dataclass(frozen=True)
class Address:
    """``user`` and ``port`` are None where ~/.ssh/config, or SSH's defaults, tell them. ``host`` may be an alias from
    there."""

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{f'{self.user}@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"

    def command(self, words: str = "") -> str:
        """The ``ssh`` command line to the device, for a person to run."""
        port = f"-p {self.port} " if self.port else ""
        return f"ssh {port}{f'{self.user}@' if self.user else ''}{self.host}{f' {words}' if words else ''}"


@dataclass(frozen=True)
class Place:
    """A device as the user names it.

    ``python`` is its interpreter, None for that of the environment which ``autotune device setup`` makes. ``folder``
    is where our files go, from the user's home there unless it is absolute. ``quota`` are the bytes they may take.
    """

    name: str
    address: Address
    python: str | None
    folder: str = ".cache/autotune"
    quota: int = 8_000_000_000


def parse_address(text: str) -> Address:
    """Raises ValueError with what is wrong with it; a password in it is never repeated."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("an address whose host or port cannot be read") from None
    if parts.password is not None:
        raise ValueError("a password in the address: use a key (ssh-copy-id) or ssh-agent")
    if parts.scheme != "ssh" or not host:
        raise ValueError(repr(text))
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"{text!r}, with something after the host")
    # urlsplit writes host names in lower case; ~/.ssh/config tells them apart.
    written = parts.netloc.rpartition("@")[2].strip("[]")
    cased = written[: len(host)] if written[: len(host)].lower() == host else host
    return Address(cased, parts.username or None, port)
