"""Pieces of work under way: one after the other with one worker, side by side with several.

A piece is a generator. It yields *errands*, functions that take long and touch nothing that is shared, and is given
what each returns, or what it raises. Errands run in threads of their own; between them all pieces run in the loop's
thread, which so alone writes to databases and to the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from autotune.search.rungs import Work

Errand = Callable[[], Any]
Piece = Generator[Errand, Any, None]


class Crew:
    """``count`` workers. ``working`` gives what is held while a piece runs in the loop's thread beside others'
    errands; ``stop()`` ends errands that run, which then raise."""

    def __init__(
        self, count: int, working: Callable[[], AbstractContextManager[None]], stop: Callable[[], None]
    ) -> None:
        self._count, self._working, self._stop = count, working, stop
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="worker")
        self._errands: dict[Future[Any], tuple[Work, Piece]] = {}

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._errands:
            self._stop()
        self._threads.shutdown(wait=True, cancel_futures=True)

    @property
    def in_flight(self) -> tuple[Work, ...]:
        """The pieces that were begun and have not ended, in the order in which they were begun."""
        return tuple(work for work, _ in self._errands.values())

    @property
    def full(self) -> bool:
        return len(self._errands) >= self._count

    def start(self, work: Work, piece: Piece) -> None:
        """Begin a piece; with one worker, bring it to its end. What it raises passes through."""
        if self._count == 1:
            _carry_out(piece)
        else:
            self._step(work, piece, lambda: next(piece))

    def wait(self) -> None:
        """Until some errand ends; its piece goes on."""
        done, _ = wait(self._errands, return_when=FIRST_COMPLETED)
        for future in [f for f in self._errands if f in done]:
            work, piece = self._errands.pop(future)
            self._step(work, piece, _answer(piece, future))

    def _step(self, work: Work, piece: Piece, step: Callable[[], Errand]) -> None:
        with self._working():
            try:
                errand = step()
            except StopIteration:
                return
        self._errands[self._threads.submit(errand)] = (work, piece)


def _answer(piece: Piece, ended: Future[Any]) -> Callable[[], Errand]:
    error = ended.exception()
    return (lambda: piece.send(ended.result())) if error is None else (lambda: piece.throw(error))


def _carry_out(piece: Piece) -> None:
    try:
        errand = next(piece)
        while True:
            try:
                found = errand()
            except Exception as error:  # noqa: BLE001 (it is the piece's own, which knows what it can stand)
                errand = piece.throw(error)
            else:
                errand = piece.send(found)
    except StopIteration:
        return
