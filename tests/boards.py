"""A real sshd on a free port of this machine with a folder of its own as "the device", and a wire that can be cut."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from autotune.targets.address import Address, Place

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
_CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
SetEnv HOME={home}
Subsystem sftp internal-sftp -d {home}
"""


@dataclass
class Wire:
    """Everything between us and the device goes through here; ``sent`` are the bytes that went there."""

    target: int
    port: int = 0
    sent: int = 0
    connections: int = 0
    cut_at: int | None = None
    _open: list[socket.socket] = field(default_factory=list)

    def start(self) -> None:
        server = socket.create_server(("127.0.0.1", 0))
        self.port = server.getsockname()[1]
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()

    def cut(self) -> None:
        """Without a word to either side."""
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self, server: socket.socket) -> None:
        while True:
            near, _ = server.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            self.connections += 1
            self._open += [near, far]
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._copy, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._copy, args=(far, near, False), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, to_device: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(1 << 16):
                target.sendall(chunk)
                self.sent += len(chunk) * to_device
                if self.cut_at is not None and self.sent > self.cut_at:
                    self.cut_at = None
                    self.cut()
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Board:
    """``home`` is the user's home there, ``client`` the home of who connects; ``place`` goes over the wire."""

    folder: Path
    wire: Wire

    @property
    def home(self) -> Path:
        return self.folder / "device"

    @property
    def client(self) -> Path:
        return self.folder / "client"

    @property
    def root(self) -> Path:
        """Where what we send goes to."""
        return self.home / ".cache" / "autotune"

    @property
    def user(self) -> str:
        return getpass.getuser()

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.user, self.wire.port)

    def place(self, **changes: Any) -> Place:
        return Place(**{"name": "board", "address": self.address, "python": sys.executable, **changes})

    def cleared(self, monkeypatch: pytest.MonkeyPatch) -> Board:
        """The device without artifacts, and this process its user's."""
        monkeypatch.setenv("HOME", str(self.client))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        self.trust()
        self.wire.cut_at = None
        for name in ("artifacts", "incoming"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        return self

    def trust(self, key: str | None = None) -> None:
        """Write known_hosts with the device's key, or with another one; an empty text leaves the host unknown."""
        public = (self.folder / "host_key.pub").read_text(encoding="utf-8") if key is None else key
        line = f"[127.0.0.1]:{self.wire.port} {public}" if public else ""
        (self.client / ".ssh" / "known_hosts").write_text(line, encoding="utf-8")

    def files(self) -> set[str]:
        """Everything on the device, relative to ``root``."""
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()}

    def environment(self) -> dict[str, str]:
        """For a command of ours that connects to it."""
        kept = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
        return {**kept, "HOME": str(self.client)}


@contextmanager
def running(folder: Path) -> Iterator[Board]:
    """A board for the block; the test is skipped where there is no sshd."""
    if SSHD is None:
        pytest.skip("needs sshd (Debian: apt-get install openssh-server)")
    for name in ("device", "client/.ssh"):
        (folder / name).mkdir(parents=True)
    make_key(folder / "host_key")
    make_key(folder / "client" / ".ssh" / "id_ed25519")
    shutil.copyfile(folder / "client" / ".ssh" / "id_ed25519.pub", folder / "authorized_keys")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "sshd_config"
    config.write_text(_CONFIG.format(port=port, folder=folder, home=folder / "device"), encoding="utf-8")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    wire = Wire(port)
    with (folder / "sshd.log").open("wb") as log, subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(config)], stderr=log, stdin=subprocess.DEVNULL
    ) as server:
        try:
            _wait_for(port, server, folder / "sshd.log")
            wire.start()
            board = Board(folder, wire)
            board.trust()
            yield board
        finally:
            wire.cut()
            server.terminate()


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if server.poll() is not None:
            break
        time.sleep(0.05)
    pytest.skip(f"sshd does not start here: {log.read_text(errors='replace')[-300:]}")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """One device for all tests of a file."""
    with running(tmp_path_factory.mktemp("board")) as found:
        yield found


@pytest.fixture
def board(shared: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    """It as it was set up."""
    return shared.cleared(monkeypatch)
