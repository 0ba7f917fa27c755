"""Whom we talk to over SSH, and as whom: keys of hosts and of users."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from autotune.errors import DeviceError
from autotune.targets.address import Address
from autotune.targets.connection import run
from autotune.targets.ssh import Ssh, open_ssh
from tests import boards
from tests.boards import Board

pytest_plugins = ["tests.boards"]  # the fixtures `shared` and `board`


def opened(board: Board) -> Ssh:
    return open_ssh(board.place(), "cpu", lambda text: None)


def test_a_changed_host_key_is_refused_and_said(board: Board, tmp_path: Path) -> None:
    boards.make_key(tmp_path / "other")
    board.trust((tmp_path / "other.pub").read_text())
    before = board.wire.sent
    with pytest.raises(DeviceError, match=r"board: host key: it has CHANGED: the device shows ssh-ed25519 SHA256:.*"
                       rf"ssh-keygen -R '\[127\.0\.0\.1\]:{board.wire.port}'"):
        opened(board)
    assert board.wire.sent - before < 5_000  # the two handshakes alone


def test_a_host_that_was_never_seen_is_another_matter(board: Board) -> None:
    board.trust("")
    with pytest.raises(DeviceError, match=r"host key: ssh-ed25519 SHA256:.* is in no known_hosts file; .*accepted: "
                       r"a host that you have connected to: run ssh -p \d+ "):
        opened(board)


def test_a_key_that_is_not_accepted(board: Board) -> None:
    accepted = board.folder / "authorized_keys"
    kept = accepted.read_bytes()
    accepted.write_bytes(b"")
    try:
        with pytest.raises(DeviceError, match=r"board: login: no key of .* was accepted.*accepted: .*ssh-copy-id -p "):
            opened(board)
    finally:
        accepted.write_bytes(kept)


@pytest.mark.parametrize("text", ["Host *\n  StrictHostKeyChecking no\n", "Host *\n  UserKnownHostsFile none\n"])
def test_checking_cannot_be_switched_off(board: Board, text: str) -> None:
    board.trust("")
    config = board.client / ".ssh" / "config"
    config.write_text(text)
    try:
        with pytest.raises(DeviceError, match="host key"):
            opened(board)
    finally:
        config.unlink()


def test_a_folder_that_cannot_be_written(board: Board) -> None:
    with pytest.raises(DeviceError, match=r"board: files: SFTP in /dev/null/x: .*; accepted: an SSH server with SFTP, "
                       "and a folder there that can be written"):
        open_ssh(board.place(folder="/dev/null/x"), "cpu", lambda text: None)


def test_a_host_may_be_an_alias_of_the_users_config(board: Board) -> None:
    config = board.client / ".ssh" / "config"
    config.write_text(f"Host myboard\n  HostName 127.0.0.1\n  Port {board.wire.port}\n  User {board.user}\n")
    try:
        place = board.place(address=Address("myboard"))
        assert open_ssh(place, "cpu", lambda text: None).fingerprint["cores"] >= 1
    finally:
        config.unlink()


def test_it_runs_inside_a_notebooks_loop_too() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    async def notebook() -> int:
        return run(work())

    assert asyncio.run(notebook()) == run(work()) == 7
