"""A bundle's folder is whole or not there, and what is no bundle stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autotune.bundle.write import require_free, write
from autotune.errors import ConfigError
from objectives import integrity


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_text("weights")
    path.chmod(0o600)
    return path


def put(out: Path, source: Path, expected: dict[str, str] | None = None) -> None:
    write(out, {"model/weights": source}, {"README.md": "text"}, {"schema": integrity.SCHEMA}, expected or {})


def test_files_are_copies_with_fixed_modes(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "deep" / "bundle"
    put(out, source)
    copy = out / "model" / "weights"
    assert integrity.check(out).problems == ()
    assert (copy.stat().st_nlink, copy.stat().st_mode & 0o777) == (1, 0o644)
    assert [p.name for p in out.parent.iterdir()] == ["bundle"]


def test_a_bundle_is_replaced_and_an_empty_folder_taken(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    require_free(out)
    put(out, source)
    require_free(out)
    source.write_text("other weights")
    put(out, source)
    assert (out / "model" / "weights").read_text() == "other weights"
    assert integrity.check(out).problems == ()


def test_what_is_no_bundle_is_never_overwritten(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "thesis.txt").write_text("years")
    with pytest.raises(ConfigError, match="is there and is no bundle; accepted: a new folder"):
        require_free(out)
    with pytest.raises(ConfigError, match="is no folder"):
        require_free(out / "thesis.txt")
    (out / "thesis.txt").unlink()
    put(out, source)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds notes\.txt, which is no part of the bundle there"):
        require_free(out)


def test_a_damaged_source_leaves_nothing_and_keeps_what_was_there(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "bundle"
    put(out, source)
    with pytest.raises(ConfigError, match="damaged: its sha256 is not the one that was stored"):
        put(out, source, {"model/weights": "0" * 64})
    assert integrity.check(out).problems == ()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "source"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, source: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with pytest.raises(ConfigError, match="a folder that can be written"):
        put(closed / "bundle", source)


def test_a_place_below_a_file_is_said(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ConfigError, match="--out"):
        put(source / "bundle", source)
