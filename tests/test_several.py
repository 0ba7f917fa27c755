"""Entries made in one go: each is made once, whoever else wants it, and a failure costs the others nothing."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from autotune.errors import StageError, TrainingError
from autotune.storage.entry_key import Key, make_key
from autotune.storage.several import make_several
from autotune.storage.store import Entry, Store

KEYS = [make_key("adapter", 1, {"number": i}) for i in range(6)]


def write(folders: Mapping[Key, Path]) -> dict[Key, float | StageError]:
    for key, folder in folders.items():
        (folder / "name").write_text(str(key))
    return dict.fromkeys(folders, 1.0)


def test_what_is_missing_is_made_together_and_the_seconds_are_shared_out(tmp_path: Path) -> None:
    store, asked = Store(tmp_path), []
    there = store.make(KEYS[2], lambda out: write({KEYS[2]: out}))

    def produce(folders: Mapping[Key, Path]) -> dict[Key, float | StageError]:
        asked.append(set(folders))
        time.sleep(0.2)
        return write(folders) | {KEYS[0]: 3.0}

    found = make_several(store, KEYS[:4], produce)
    assert asked == [{KEYS[0], KEYS[1], KEYS[3]}]
    first, second, third, fourth = (entry for key in KEYS[:4] if isinstance(entry := found[key], Entry))
    assert (third.cached, third.path) == (True, there.path)
    assert first.seconds == pytest.approx(3 * second.seconds)
    assert second.seconds == fourth.seconds
    assert 0.2 <= first.seconds + second.seconds + fourth.seconds < 2
    assert all((store.path(key) / "name").read_text() == str(key) for key in KEYS[:4])
    assert make_several(store, KEYS[:4], produce).keys() == found.keys()
    assert len(asked) == 1


def test_a_failure_is_returned_and_never_stored(tmp_path: Path) -> None:
    store = Store(tmp_path)
    found = make_several(store, KEYS[:3], lambda folders: write(folders) | {KEYS[1]: TrainingError("diverged")})
    assert isinstance(found[KEYS[1]], TrainingError)
    assert [store.get(key) is None for key in KEYS[:3]] == [False, True, False]
    assert not list(tmp_path.glob("*/.making-*"))
    again = make_several(store, KEYS[:3], write)
    assert [isinstance(e, Entry) and e.cached for e in again.values()].count(True) == 2


def test_what_is_raised_leaves_nothing_behind_and_no_lock(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def broken(folders: Mapping[Key, Path]) -> dict[Key, float | StageError]:
        write(folders)
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        make_several(store, KEYS[:2], broken)
    assert not list(tmp_path.glob("adapter/*"))
    assert not any(store.busy(key) for key in KEYS[:2])


def test_what_another_makes_is_waited_for_after_the_rest_was_made(tmp_path: Path) -> None:
    store, order, begun, go_on = Store(tmp_path), [], threading.Event(), threading.Event()

    def slowly(out: Path) -> None:
        begun.set()
        assert go_on.wait(60)
        write({KEYS[0]: out})

    def produce(folders: Mapping[Key, Path]) -> dict[Key, float | StageError]:
        order.append(set(folders))
        go_on.set()  # so it never has to wait before it has done what it can
        return write(folders)

    other = threading.Thread(target=lambda: store.make(KEYS[0], slowly))
    other.start()
    assert begun.wait(60)
    found = make_several(store, KEYS[:3], produce)
    other.join()
    assert order == [{KEYS[1], KEYS[2]}]
    entry = found[KEYS[0]]
    assert isinstance(entry, Entry)
    assert entry.cached


def _make_all(root: Path, first: int, log: Path) -> None:
    def produce(folders: Mapping[Key, Path]) -> dict[Key, float | StageError]:
        with log.open("a") as file:
            file.writelines(f"{key}\n" for key in folders)
        time.sleep(0.1)
        return write(folders)

    store = Store(root)
    for start in (first, (first + 3) % 6):  # each in an order of its own, overlapping
        make_several(store, [KEYS[(start + i) % 6] for i in range(4)], produce)


def test_processes_that_want_the_same_make_each_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    others = [context.Process(target=_make_all, args=(tmp_path / "store", first, log)) for first in (0, 2, 4)]
    for process in others:
        process.start()
    for process in others:
        process.join(120)
    assert [process.exitcode for process in others] == [0, 0, 0]
    assert sorted(log.read_text().split()) == sorted(str(key) for key in KEYS)
