"""Addresses of devices."""

from __future__ import annotations

import pytest

from autotune.targets.address import Address, parse_address


@pytest.mark.parametrize(("text", "address"), [
    ("ssh://pi@board:2222", Address("board", "pi", 2222)),
    ("ssh://board", Address("board")),
    ("ssh://pi@board/", Address("board", "pi")),
    ("ssh://pi@My-Board", Address("My-Board", "pi")),
    ("ssh://[fe80::1]:22", Address("fe80::1", None, 22)),
])
def test_addresses_are_read(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(("text", "found"), [
    ("http://board", "http://board"), ("board", "board"), ("ssh://", "ssh://"), ("pi@board", "pi@board"),
    ("ssh://board/home/pi", "something after the host"), ("ssh://board:http", "cannot be read"),
])
def test_what_is_no_address_is_refused(text: str, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        parse_address(text)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="a password in the address: use a key") as raised:
        parse_address("ssh://pi:s3cret@board")
    assert "s3cret" not in str(raised.value)


def test_the_command_to_try_by_hand() -> None:
    assert Address("board", "pi", 2222).command("true") == "ssh -p 2222 pi@board true"
    assert Address("board").command() == "ssh board"
