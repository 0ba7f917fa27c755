"""A store beneath the local one: what is made is written there, what is missing is fetched, and damage is no entry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from autotune.errors import ConfigError
from autotune.storage.entry_key import Key, make_key
from autotune.storage.mirror import Mirror
from autotune.storage.store import Entry, Store

KEY = make_key("point", 1, {"what": "a"})
TWIN = make_key("adapter", 1, {"what": "b"})


def produce(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "weights").write_bytes(b"w" * 1000)
    (folder / "info.json").write_text("{}")


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    found = f"memory://mirror-{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path / 'mirror'}"
    yield found
    files, root = fsspec.core.url_to_fs(found)
    if files.exists(root):
        files.rm(root, recursive=True)


def store(root: Path, url: str) -> Store:
    return Store(root, pytest.fail, Mirror(url, pytest.fail))


def made(store: Store, key: Key = KEY) -> Entry:
    return store.make(key, produce)


def inside(url: str, pattern: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    return sorted(str(found) for found in files.glob(f"{root}/{pattern}"))


def test_what_one_machine_made_another_finds(tmp_path: Path, url: str) -> None:
    first = made(store(tmp_path / "here", url))
    other = store(tmp_path / "there", url)
    found = other.get(KEY, verify=True)
    assert found
    assert found.cached
    assert found.path == tmp_path / "there" / "point" / KEY.digest
    assert found.seconds == pytest.approx(first.seconds, abs=1e-3)
    assert (found.path / "inner" / "weights").read_bytes() == b"w" * 1000
    again = store(tmp_path / "third", url).make(KEY, lambda out: pytest.fail("made again"))
    assert again.cached


def test_a_file_that_entries_share_lies_there_once(tmp_path: Path, url: str) -> None:
    here = store(tmp_path / "here", url)
    made(here)
    made(here, TWIN)
    assert len(inside(url, "entries/*/*.json")) == 2
    assert len(inside(url, "files/*/*")) == 2


def test_an_artifact_stays_local_as_it_is_made_again_sooner(tmp_path: Path, url: str) -> None:
    made(store(tmp_path / "here", url), make_key("artifact", 1, {}))
    assert inside(url, "entries/*/*.json") == []


def test_without_its_manifest_an_entry_is_not_there(tmp_path: Path, url: str) -> None:
    made(store(tmp_path / "here", url))
    files, _ = fsspec.core.url_to_fs(url)
    files.rm(inside(url, "entries/*/*.json")[0])
    assert store(tmp_path / "there", url).get(KEY) is None


@pytest.mark.parametrize("harm", ["a file", "a file's end", "the manifest", "a path out of the folder"])
def test_what_is_damaged_there_is_made_again_and_mended(tmp_path: Path, url: str, harm: str) -> None:
    made(store(tmp_path / "here", url))
    files, _ = fsspec.core.url_to_fs(url)
    manifest, weights = inside(url, "entries/*/*.json")[0], max(inside(url, "files/*/*"), key=files.size)
    match harm:
        case "a file":
            files.pipe_file(weights, b"x" * 1000)
        case "a file's end":
            files.pipe_file(weights, b"w" * 500)
        case "the manifest":
            files.pipe_file(manifest, files.cat_file(manifest)[:-20])
        case _:
            told = json.loads(files.cat_file(manifest))
            told["files"]["../../escaped"] = told["files"].pop("info.json")
            files.pipe_file(manifest, json.dumps(told).encode())
    there = store(tmp_path / "there", url)
    assert there.get(KEY) is None
    assert not made(there).cached
    assert not list(tmp_path.rglob("escaped"))
    assert store(tmp_path / "third", url).get(KEY), "the entry there was not mended"


def test_one_that_cannot_be_written_is_said_once_and_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    said: list[str] = []
    here = Store(tmp_path / "here", pytest.fail, Mirror(f"file://{tmp_path / 'mirror'}", said.append))
    (tmp_path / "mirror").rmdir()
    (tmp_path / "mirror").touch()
    assert made(here).path.exists()
    assert made(here, TWIN).path.exists()
    assert len(said) == 1
    assert "work goes on with the local one" in said[0]


def test_a_file_system_that_is_not_known_is_an_error_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        Mirror("nonsense://me:secret@there", pytest.fail)
    with pytest.raises(ConfigError) as caught:
        Mirror("nonsense://me:secret@there", pytest.fail)
    assert "secret" not in str(caught.value)
