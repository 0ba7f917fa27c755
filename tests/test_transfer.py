"""What is sent: artifacts by their contents, and the package that measures."""

from __future__ import annotations

import os
from pathlib import Path

from autotune.targets.transfer import describe, package
from objectives.device.agent import code_digest


def make(folder: Path, **contents: str) -> Path:
    (folder / "inner").mkdir(parents=True)
    for name, text in contents.items():
        (folder / "inner" / name).write_text(text)
    return folder


def test_an_artifact_is_its_contents_wherever_it_lies(tmp_path: Path) -> None:
    one, same = make(tmp_path / "a", model="m", config="c"), make(tmp_path / "b", model="m", config="c")
    assert describe(one).name == describe(same).name
    assert describe(one).name != describe(make(tmp_path / "c", model="m", config="d")).name
    assert set(describe(one).files) == {"inner/model", "inner/config"}
    assert describe(one).size == 2


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", model="m")
    before = describe(folder).name
    (folder / "inner" / "model").write_text("n")
    os.utime(folder / "inner" / "model", ns=(1, 1))
    assert describe(folder).name != before


def test_the_device_and_we_mean_the_same_by_the_packages_digest() -> None:
    digest, files = package()
    assert digest == code_digest()
    assert "probe.py" in files
    assert "device/agent.py" in files
    assert all(name.endswith(".py") for name in files)
