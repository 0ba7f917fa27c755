"""A bundle's files held against its manifest: what is named, and that nothing else is touched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from objectives import integrity

CONTENT = {"model/weights": b"some weights", "run.py": b"print()\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "bundle"
    for name, content in CONTENT.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return sealed(root, {name: entry(content) for name, content in CONTENT.items()})


def entry(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def sealed(root: Path, files: dict[str, Any]) -> Path:
    manifest: dict[str, Any] = {"schema": integrity.SCHEMA, "files": files, "label": "joy é"}
    manifest["digest"] = integrity.digest(manifest)
    (root / integrity.MANIFEST).write_text(integrity.written(manifest), encoding="utf-8")
    return root


def problems(folder: Path) -> str:
    return "\n".join(integrity.check(folder).problems)


def test_a_bundle_as_it_was_made_is_whole(folder: Path) -> None:
    found = integrity.check(folder)
    assert found.problems == ()
    assert set(found.files) == set(CONTENT)


def test_every_difference_is_named_at_once(folder: Path) -> None:
    (folder / "model" / "weights").write_bytes(b"some weighty")
    (folder / "run.py").unlink()
    (folder / "model" / "more").write_bytes(b"")
    assert problems(folder).split("\n") == [
        "model/weights was changed: its sha256 is another", "run.py is missing",
        "model/more does not belong to the bundle"]


def test_a_file_cut_short_is_said_with_its_sizes(folder: Path) -> None:
    (folder / "model" / "weights").write_bytes(b"some")
    assert problems(folder) == "model/weights is cut short: 4 bytes, not 12"


@pytest.mark.parametrize("name", [
    "../x", "/etc/passwd", "model/../../x", "C:/x", "c:x", "model\\x", "model//x", "./x", "", "x/", "a\x00b", "file:s",
])
def test_a_name_that_may_leave_the_folder_is_refused_before_anything_is_read(folder: Path, name: str) -> None:
    (folder / "run.py").unlink()
    sealed(folder, {name: entry(b"x"), "run.py": entry(b"x")})
    found = integrity.check(folder)
    assert found.manifest is None
    assert len(found.problems) == 1
    assert repr(name) in found.problems[0]


@pytest.mark.parametrize("inside", [True, False])
def test_a_link_is_refused_wherever_it_leads(folder: Path, tmp_path: Path, inside: bool) -> None:
    real = (folder if inside else tmp_path) / "real"
    real.mkdir()
    (real / "weights").write_bytes(CONTENT["model/weights"])
    (folder / "model" / "weights").unlink()
    (folder / "model").rmdir()
    (folder / "model").symlink_to(real, target_is_directory=True)
    assert "model/weights is a symbolic link, or lies behind one" in problems(folder)
    assert "model does not belong to the bundle" in problems(folder)


@pytest.mark.parametrize(("change", "found"), [
    (lambda text: text.replace("joy", "jny"), "not as it was written"), (lambda text: text[:-40], "damaged"),
    (lambda text: text.replace(" ", "  "), "not as it was written"), (lambda text: "[]", "found None"),
    (lambda text: text.replace("bundle@1", "bundle@9"), "autotune/bundle@9"),
])
def test_a_manifest_that_was_changed_is_found_out(folder: Path, change: Any, found: str) -> None:
    path = folder / integrity.MANIFEST
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert found in problems(folder)
    assert "manifest.json" in problems(folder)


def test_a_manifest_that_is_no_text_or_not_there_is_said(folder: Path) -> None:
    (folder / integrity.MANIFEST).write_bytes(b"\xff\xfe")
    assert "damaged" in problems(folder)
    (folder / integrity.MANIFEST).unlink()
    assert "is no bundle" in problems(folder)


def test_files_must_have_sizes_and_hashes(folder: Path) -> None:
    sealed(folder, {"run.py": {"size": "12"}})
    assert "no sizes and sha256" in problems(folder)


def test_the_digest_names_the_content_alone(folder: Path) -> None:
    manifest = json.loads((folder / integrity.MANIFEST).read_text(encoding="utf-8"))
    assert integrity.digest(dict(reversed(manifest.items()))) == manifest["digest"]
    assert integrity.digest({**manifest, "label": "fear"}) != manifest["digest"]
