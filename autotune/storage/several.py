"""Several entries of the store made in one go, such as adapters that train together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from filelock import Timeout

from autotune.errors import StageError
from autotune.storage.entry_key import Key
from autotune.storage.store import Entry, Store

#: Writes into the empty folder of each key; gives what each took (in any unit, as a share), or why it is not made.
Produce = Callable[[Mapping[Key, Path]], Mapping[Key, float | StageError]]


def make_several(
    store: Store, keys: Iterable[Key], produce: Produce, *,
    during: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
) -> dict[Key, Entry | StageError]:
    """Each key's stored entry, or what ``produce`` writes for it; or the error that it gives instead, never stored.

    ``produce`` is asked first for those that are missing and that no other process makes just now, then for those
    that the others left unmade. Nobody waits for an entry's lock while holding one, so processes that want the same
    entries cannot wait for each other. Those made together have ``seconds`` that add up to what that took.
    ``during`` is as in ``Store.make``. What ``produce`` raises passes through.
    """
    wanted = sorted(set(keys), key=str)
    found: dict[Key, Entry | StageError] = {}
    while left := [key for key in wanted if key not in found]:
        with ExitStack() as locks:
            folders: dict[Key, Path] = {}
            for key in left:
                _open(store, key, locks, folders, found, timeout=0)
            if not folders and not found.keys() & set(left):
                _open(store, left[0], locks, folders, found, timeout=-1)
                for key in left[1:]:
                    _open(store, key, locks, folders, found, timeout=0)
            if folders:
                with during():
                    found |= _made(store, folders, produce)
    return found


def _open(
    store: Store, key: Key, locks: ExitStack, folders: dict[Key, Path], found: dict[Key, Entry | StageError],
    timeout: float,
) -> None:
    """Into ``found`` what is stored, into ``folders`` what is to be made, under its lock; nothing of what is taken."""
    with ExitStack() as own:
        try:
            entry = own.enter_context(store.opened(key, timeout))
        except Timeout:
            return
        if isinstance(entry, Entry):
            found[key] = entry
        else:
            folders[key] = entry
            locks.push(own.pop_all())


def _made(store: Store, folders: Mapping[Key, Path], produce: Produce) -> dict[Key, Entry | StageError]:
    start = time.perf_counter()
    outcomes = produce(folders)
    whole = time.perf_counter() - start
    shares = {key: share for key, share in outcomes.items() if not isinstance(share, StageError)}
    total = sum(shares.values())
    made: dict[Key, Entry | StageError] = {}
    for key, outcome in outcomes.items():
        if isinstance(outcome, StageError):
            made[key] = outcome
        else:
            seconds = whole * (outcome / total if total else 1 / len(shares))
            made[key] = store.finish(key, folders[key], seconds)
    return made
