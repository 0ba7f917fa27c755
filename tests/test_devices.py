"""The user's devices file."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.errors import ConfigError
from autotune.targets.address import Address
from autotune.targets.devices import VARIABLE, devices_path, find_place, read_devices


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "devices.yaml"))
    return tmp_path / "devices.yaml"


def test_a_name_stands_for_all_that_is_said_of_a_device(file: Path) -> None:
    file.write_text("pi: {host: ssh://pi@board:2222, python: ~/venv/bin/python, folder: /mnt/ssd/autotune, quota: 4GB}")
    place = find_place("pi", None, file="study.yaml", where="target.host")
    assert (place.name, place.address) == ("pi", Address("board", "pi", 2222))
    assert (place.python, place.folder, place.quota) == ("~/venv/bin/python", "/mnt/ssd/autotune", 4 * 10**9)
    assert find_place("pi", "/usr/bin/python3", file="", where="").python == "/usr/bin/python3"


def test_an_address_needs_no_file(file: Path) -> None:
    place = find_place("ssh://pi@board", None, file="study.yaml", where="target.host")
    assert (place.name, place.python, place.quota) == ("ssh://pi@board", None, 8 * 10**9)


def test_an_unknown_name_is_told_with_the_nearest(file: Path) -> None:
    file.write_text("pi4: {host: ssh://pi@board}\nnano: {host: ssh://nano}")
    with pytest.raises(ConfigError, match=r"study\.yaml: target\.host: 'pi5', did you mean 'pi4'\?.*\(pi4, nano\)"):
        find_place("pi5", None, file="study.yaml", where="target.host")


def test_everything_wrong_in_the_file_is_told_at_once(file: Path) -> None:
    file.write_text("local: {host: ssh://a}\npi: {host: board, quota: much, pyhton: x}\nnano: {}")
    with pytest.raises(ConfigError) as raised:
        read_devices(file)
    told = str(raised.value)
    assert "local: no name for a device" in told
    assert "pi.pyhton: unknown key, did you mean 'python'?" in told
    assert "pi.host: 'board'; accepted: ssh://USER@HOST:PORT" in told
    assert "pi.quota: 'much'; accepted: a size such as" in told
    assert "nano.host: missing" in told


@pytest.mark.parametrize("text", ["- a", "a: [", "\tx"])
def test_a_file_that_is_no_mapping_is_told(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"devices\.yaml.*accepted: .*pi: \{host: ssh://"):
        read_devices(file)


def test_where_the_file_is(tmp_path: Path) -> None:
    assert devices_path({"XDG_CONFIG_HOME": str(tmp_path)}) == tmp_path / "autotune" / "devices.yaml"
    assert read_devices(tmp_path / "none.yaml") == {}
