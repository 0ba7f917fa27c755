"""The store: whole entries or none, made once, damaged ones made again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from autotune.storage import run_registry
from autotune.storage.entry_key import Key, library_version, make_key
from autotune.storage.store import Entry, Store

KEY = make_key("adapter", 1, {"rank": 8})
OTHER = make_key("adapter", 1, {"rank": 99})


def produce(out: Path) -> None:
    (out / "weights").write_text("abc")


def manifest(entry: Entry) -> Any:
    return json.loads((entry.path / "manifest.json").read_text())


def test_the_key_covers_stage_version_inputs_and_libraries() -> None:
    others = [make_key("data", 1, {"rank": 8}), make_key("adapter", 2, {"rank": 8}),
              make_key("adapter", 1, {"rank": 9}), make_key("adapter", 1, {"rank": 8}, ("numpy",))]
    assert len({KEY, *others}) == 5
    assert make_key("a", 1, {"x": 1, "y": 2}) == make_key("a", 1, {"y": 2, "x": 1})


def test_a_key_for_looking_up_needs_no_content(tmp_path: Path) -> None:
    bare = Key(KEY.stage, KEY.digest)
    assert bare == KEY
    assert hash(bare) == hash(KEY)
    assert str(bare) == f"adapter/{KEY.digest}"
    store = Store(tmp_path)
    store.make(KEY, produce)
    assert store.get(bare) is not None


def test_made_once_then_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not store.make(KEY, produce).cached
    again = store.make(KEY, lambda out: pytest.fail("made again"))
    assert again.cached
    assert (again.path / "weights").read_text() == "abc"


def test_the_manifest_says_what_made_the_entry_and_what_is_in_it(tmp_path: Path) -> None:
    key = make_key("adapter", 3, {"rank": 8, "targets": ("q", "v")}, ("numpy",))

    def nested(out: Path) -> None:
        produce(out)
        (out / "model").mkdir()
        (out / "model" / "config.json").write_text("{}")

    found = manifest(Store(tmp_path).make(key, nested))
    assert (found["key"], found["stage"], found["version"]) == (str(key), "adapter", 3)
    assert found["inputs"] == {"rank": 8, "targets": ["q", "v"]}
    assert list(found["libraries"]) == ["numpy"]
    assert found["seconds"] >= 0
    assert abs(found["created"] - time.time()) < 60
    assert found["files"] == {
        "weights": {"size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()},
        "model/config.json": {"size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()},
    }


def test_a_file_linked_from_a_parent_takes_the_parents_hash_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    parent = store.make(KEY, produce)
    # A hash that no reading of the file gives shows where the child's comes from.
    claimed = manifest(parent)
    claimed["files"]["weights"]["sha256"] = "taken over"
    (parent.path / "manifest.json").write_text(json.dumps(claimed))

    def link(out: Path) -> None:
        os.link(parent.path / "weights", out / "linked")
        (out / "copied").write_bytes((parent.path / "weights").read_bytes())

    elsewhere = Entry(make_key("base", 1, {}), tmp_path / "used where it lies", 0.0, True)
    files = manifest(store.make(OTHER, link, [elsewhere, parent]))["files"]
    assert files["linked"] == {"size": 3, "sha256": "taken over"}
    assert files["copied"]["sha256"] == hashlib.sha256(b"abc").hexdigest()


def test_what_is_held_during_the_making_is_held_until_the_files_are_on_disk(tmp_path: Path) -> None:
    steps: list[str] = []
    store = Store(tmp_path)

    @contextlib.contextmanager
    def hold() -> Iterator[None]:
        assert store.busy(KEY)  # under the entry's lock: the other way round, two that need both could block
        time.sleep(0.5)
        steps.append("in")
        yield
        steps.append("out" if list((tmp_path / "adapter").glob("*/manifest.json")) else "too early")

    entry = store.make(KEY, produce, during=hold)
    assert entry.seconds < 0.5  # its wait is no cost of the stage
    assert store.make(KEY, produce, during=hold).cached
    assert steps == ["in", "out"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(out: Path) -> None:
        produce(out)
        raise MemoryError

    store = Store(tmp_path)
    with pytest.raises(MemoryError):
        store.make(KEY, fail)
    assert store.get(KEY) is None
    assert not store.make(KEY, produce).cached


def damage_entry(path: Path, damage: str) -> None:
    if damage == "truncate":
        (path / "weights").write_text("a")
    elif damage == "remove":
        (path / "weights").unlink()
    elif damage == "no manifest":
        (path / "manifest.json").unlink()
    else:
        (path / "manifest.json").write_text(damage)


@pytest.mark.parametrize(("damage", "said"), [
    ("truncate", "weights has 1 bytes, not 3"), ("remove", "weights is missing"),
    ("no manifest", "manifest.json is missing"), ("{", "manifest.json cannot be read"),
    ("[]", "manifest.json cannot be read"), ('{"format": 2, "files": 3}', "manifest.json cannot be read"),
])
def test_a_damaged_entry_is_set_aside_said_and_made_again(tmp_path: Path, damage: str, said: str) -> None:
    sentences: list[str] = []
    store = Store(tmp_path, sentences.append)
    path = store.make(KEY, produce).path
    damage_entry(path, damage)
    assert store.get(KEY) is None
    assert store.get(KEY) is None  # said once
    assert sentences == [f"The stored {KEY} is damaged ({said}); it is set aside and made again."]
    assert (store.make(KEY, produce).path / "weights").read_text() == "abc"
    assert len(list(path.parent.glob("*.damaged-*"))) == 1


def test_making_sets_a_damaged_entry_aside_too(tmp_path: Path) -> None:
    sentences: list[str] = []
    store = Store(tmp_path, sentences.append)
    damage_entry(store.make(KEY, produce).path, "truncate")
    assert not store.make(KEY, produce).cached
    assert len(sentences) == 1


def test_changed_bytes_of_equal_size_are_found_when_asked_for(tmp_path: Path) -> None:
    sentences: list[str] = []
    store = Store(tmp_path, sentences.append)
    path = store.make(KEY, produce).path
    assert store.get(KEY, verify=True) is not None
    (path / "weights").write_text("abd")
    assert store.get(KEY) is not None
    assert store.get(KEY, verify=True) is None
    assert "the sha256 of weights is another" in sentences[0]
    assert len(list(path.parent.glob("*.damaged-*"))) == 1


def test_an_entry_of_another_format_goes_without_noise(tmp_path: Path) -> None:
    store = Store(tmp_path, pytest.fail)
    path = store.make(KEY, produce).path
    (path / "manifest.json").write_text(json.dumps({"key": str(KEY), "seconds": 1.0, "files": {"weights": 3}}))
    assert store.get(KEY) is None
    assert [p.name for p in path.parent.iterdir()] == []
    assert not store.make(KEY, produce).cached


def test_an_entry_that_another_process_replaces_is_not_called_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path, pytest.fail)
    path = store.make(KEY, produce).path
    damage_entry(path, "truncate")
    with store._locked(KEY):  # whoever holds the lock deals with it
        assert Store(tmp_path, pytest.fail).get(KEY) is None
    assert path.exists()


def test_getting_an_entry_renews_its_last_use(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entry = store.make(KEY, produce)
    os.utime(entry.path / "manifest.json", (1000, 1000))
    assert [s.last_used for s in store.entries()] == [1000]
    store.get(KEY)
    assert [s.last_used > 1000 for s in store.entries()] == [True]


def test_the_listing_counts_a_shared_file_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    parent = store.make(KEY, lambda out: (out / "big").write_bytes(bytes(10_000)))
    store.make(OTHER, lambda out: os.link(parent.path / "big", out / "big"), [parent])
    sizes = {s.key: s.bytes for s in store.entries()}
    assert sizes[KEY] > 10_000
    assert 0 < sizes[OTHER] < 10_000
    assert [s.key for s in store.entries()] == [KEY, OTHER]


def test_runs_are_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    run = tmp_path / "runs" / "tone ö"
    run.mkdir(parents=True)
    for folder in (run, run / ".." / "tone ö"):
        run_registry.register(store.root, folder)
    assert [r.path for r in run_registry.registered(store.root)] == [run]
    run_registry.unregister(store.root, run)
    assert run_registry.registered(store.root) == []


def _worker(root: str, results: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    def slow(out: Path) -> None:
        time.sleep(0.5)
        produce(out)

    results.put(Store(Path(root)).make(KEY, slow).cached)


def test_two_processes_make_an_entry_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_worker, args=(str(tmp_path), results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert sorted(results.get(timeout=30) for _ in workers) == [False, True]
    for worker in workers:
        worker.join()


def _find_damage(root: str, barrier: Any, results: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    said: list[str] = []
    store = Store(Path(root), said.append)
    barrier.wait()
    found = store.get(KEY)
    results.put((found is None, len(said)))


def test_processes_that_find_the_same_damage_set_it_aside_once(tmp_path: Path) -> None:
    damage_entry(Store(tmp_path).make(KEY, produce).path, "truncate")
    context = multiprocessing.get_context("fork")
    results, barrier = context.Queue(), context.Barrier(4)
    finders = [context.Process(target=_find_damage, args=(str(tmp_path), barrier, results)) for _ in range(4)]
    for finder in finders:
        finder.start()
    found = [results.get(timeout=30) for _ in finders]
    assert all(nothing for nothing, _ in found)
    assert sum(said for _, said in found) == 1
    assert len(list((tmp_path / "adapter").glob("*.damaged-*"))) == 1
    for finder in finders:
        finder.join()


def test_dropped_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make(KEY, produce)
    assert store.drop(KEY)
    assert store.get(KEY) is None
    assert not store.drop(KEY)


def test_dropping_spares_what_was_used_meanwhile(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make(KEY, produce)
    assert not store.drop(KEY, unused_since=time.time() - 60)
    assert store.drop(KEY, unused_since=time.time() + 60)


def test_leftovers_of_the_dead_are_swept_and_work_of_the_living_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make(KEY, produce)
    for name in (".dropped-1234", ".making-5678"):
        (tmp_path / "adapter" / name).mkdir()

    def look(out: Path) -> None:
        Store(tmp_path)  # another process opens the store while this entry is made
        assert out.exists()
        produce(out)

    assert not store.make(OTHER, look).cached
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == sorted([KEY.digest, OTHER.digest])


def test_damaged_entries_stay_a_week(tmp_path: Path) -> None:
    store = Store(tmp_path)
    damage_entry(store.make(KEY, produce).path, "truncate")
    store.get(KEY)
    Store(tmp_path)
    (aside,) = (tmp_path / "adapter").iterdir()
    os.utime(aside, (time.time() - 8 * 24 * 3600,) * 2)
    Store(tmp_path)
    assert not aside.exists()


def test_leftovers_can_be_cleared_but_not_what_was_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    damage_entry(store.make(KEY, produce).path, "truncate")
    store.get(KEY)
    (store.make(OTHER, produce).path / "manifest.json").write_text('{"files": {"weights": 3}}')
    found = store.leftovers()
    assert {p.name.partition(".")[0] for p in found} == {KEY.digest, OTHER.digest}
    store.make(OTHER, produce)
    for path in found:
        store.clear(path)
    assert store.get(OTHER) is not None
    assert [p.name for p in (tmp_path / "adapter").iterdir()] == [OTHER.digest]


def test_dropping_does_not_wait_for_who_makes_the_entry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make(KEY, produce)
    assert not store.busy(KEY)
    with store._locked(KEY):
        assert store.busy(KEY)
        assert not Store(tmp_path).drop(KEY)
    assert store.get(KEY) is not None


def test_another_build_of_a_library_counts_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "onnxruntime-gpu":
            return "1.31.1"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert library_version("onnxruntime") == "1.31.1 (onnxruntime-gpu)"
    assert library_version("torch") == "none"


def test_of_two_builds_that_are_installed_side_by_side_both_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One shadows the other: what is stored of one must not be taken for the other's."""
    builds = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}

    def version(name: str) -> str:
        if name not in builds:
            raise metadata.PackageNotFoundError(name)
        return builds[name]

    monkeypatch.setattr(metadata, "version", version)
    assert library_version("onnxruntime") == "1.32.0, 1.31.1 (onnxruntime-gpu)"
