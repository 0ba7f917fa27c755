"""The store: whole entries or none, made once, damaged ones made again."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from autotune.store import Store, make_key

KEY = make_key("adapter", 1, {"rank": 8})


def produce(out: Path) -> None:
    (out / "weights").write_text("abc")


def test_the_key_covers_stage_version_inputs_and_libraries() -> None:
    others = [make_key("data", 1, {"rank": 8}), make_key("adapter", 2, {"rank": 8}),
              make_key("adapter", 1, {"rank": 9}), make_key("adapter", 1, {"rank": 8}, ("numpy",))]
    assert len({KEY, *others}) == 5
    assert make_key("a", 1, {"x": 1, "y": 2}) == make_key("a", 1, {"y": 2, "x": 1})


def test_made_once_then_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not store.make(KEY, {}, produce).cached
    again = store.make(KEY, {}, lambda out: pytest.fail("made again"))
    assert again.cached
    assert (again.path / "weights").read_text() == "abc"


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(out: Path) -> None:
        produce(out)
        raise MemoryError

    store = Store(tmp_path)
    with pytest.raises(MemoryError):
        store.make(KEY, {}, fail)
    assert store.get(KEY) is None
    assert not store.make(KEY, {}, produce).cached


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest"])
def test_a_damaged_entry_is_set_aside_and_made_again(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    path = store.make(KEY, {}, produce).path
    if damage == "truncate":
        (path / "weights").write_text("a")
    elif damage == "remove":
        (path / "weights").unlink()
    else:
        (path / "manifest.json").write_text("{")
    assert store.get(KEY) is None
    assert (store.make(KEY, {}, produce).path / "weights").read_text() == "abc"
    assert len(list(path.parent.glob("*.damaged-*"))) == 1


def _worker(root: str, results: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    def slow(out: Path) -> None:
        import time

        time.sleep(0.5)
        produce(out)

    results.put(Store(Path(root)).make(KEY, {}, slow).cached)


def test_two_processes_make_an_entry_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_worker, args=(str(tmp_path), results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert sorted(results.get(timeout=30) for _ in workers) == [False, True]
    for worker in workers:
        worker.join()


def test_dropped_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make(KEY, {}, produce)
    store.drop(KEY)
    assert store.get(KEY) is None


def test_leftovers_of_the_dead_are_swept_and_work_of_the_living_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make(KEY, {}, produce)
    for name in (".dropped-1234", ".making-5678"):
        (tmp_path / "adapter" / name).mkdir()

    def look(out: Path) -> None:
        Store(tmp_path)  # another process opens the store while this entry is made
        assert out.exists()
        produce(out)

    other = make_key("adapter", 1, {"rank": 99})
    assert not store.make(other, {}, look).cached
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == sorted([KEY.digest, other.digest])


def test_dropping_does_not_wait_for_who_makes_the_entry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make(KEY, {}, produce)
    with store._locked(KEY):
        Store(tmp_path).drop(KEY)
    assert store.get(KEY) is not None
