"""The base model's licence, wherever it may stand."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import gguf
import pytest

from autotune.bundle.licence import licence_of


def folder(path: Path, card: str = "", config: dict[str, str] | None = None) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config or {}), encoding="utf-8")
    if card:
        (path / "README.md").write_text(card, encoding="utf-8")
    return path


@pytest.mark.parametrize(("card", "config", "name"), [
    ("---\nlicense: apache-2.0\n---\n# It\n", {}, "apache-2.0"),
    ("---\nlicense: other\nlicense_name: our own\n---\n", {"license": "mit"}, "our own"),
    ("# no front matter", {"license": "mit"}, "mit"), ("", {}, None), ("---\n- a list\n---\n", {}, None),
])
def test_of_a_folder(tmp_path: Path, card: str, config: dict[str, str], name: str | None) -> None:
    folder(tmp_path / "model", card, config)
    found = licence_of("model", tmp_path, {})
    assert found.name == name
    assert "base model's folder" in found.source


def test_of_a_package() -> None:
    about = importlib.metadata.metadata("numpy")
    found = licence_of("package:numpy", None, {})
    assert found.name == about["License-Expression"]
    assert found.source == "the metadata of the Python package numpy"


def test_of_a_hub_model_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = licence_of("some-org/some-model", None, {"kind": "hub", "revision": "0" * 40})
    assert (found.name, "its model card was not downloaded" in found.source) == (None, True)


def test_of_a_gguf_file(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_license("apache-2.0")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    assert licence_of("model.gguf", tmp_path, {}).name == "apache-2.0"
    assert licence_of("broken.gguf", tmp_path, {}).name is None


def test_of_a_model_that_is_gone(tmp_path: Path) -> None:
    assert licence_of("./gone", tmp_path, {}).source == "the base model is not here any more"
