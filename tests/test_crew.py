"""Pieces of work side by side: errands in threads, everything else in the loop's own."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import pytest

from autotune.errors import StageError
from autotune.search.crew import Crew, Piece
from autotune.search.rungs import Score


def crew(count: int, stop: threading.Event | None = None) -> Crew:
    return Crew(count, nullcontext, (stop or threading.Event()).set)


def test_one_worker_brings_a_piece_to_its_end_before_the_next() -> None:
    done: list[str] = []

    def piece(name: str) -> Piece:
        found = yield lambda: f"{name} in {threading.current_thread().name}"
        done.append(found)

    with crew(1) as alone:
        alone.start(Score(0, "a"), piece("a"))
        assert alone.in_flight == ()
        alone.start(Score(0, "b"), piece("b"))
    assert done == ["a in MainThread", "b in MainThread"]


def test_errands_run_at_once_and_pieces_in_the_loops_thread_alone() -> None:
    meet, threads, done = threading.Barrier(2, timeout=10), set(), []

    def piece(name: str) -> Piece:
        for _ in range(2):
            yield meet.wait  # passes only when both are there
            threads.add(threading.current_thread().name)
        done.append(name)

    with crew(2) as both:
        both.start(Score(0, "a"), piece("a"))
        assert not both.full
        both.start(Score(0, "b"), piece("b"))
        assert both.full
        assert both.in_flight == (Score(0, "a"), Score(0, "b"))
        while both.in_flight:
            both.wait()
    assert sorted(done) == ["a", "b"]
    assert threads == {"MainThread"}


@pytest.mark.parametrize("count", [1, 2])
def test_what_an_errand_raises_arrives_in_its_piece_which_may_go_on(count: int) -> None:
    told: list[str] = []

    def fail() -> None:
        raise StageError("half of it")

    def piece() -> Piece:
        try:
            yield fail
        except StageError as error:
            told.append(error.reason)
        told.append((yield lambda: "and on"))

    with crew(count) as some:
        some.start(Score(0, "a"), piece())
        while some.in_flight:
            some.wait()
    assert told == ["half of it", "and on"]


def test_errands_are_ended_when_the_loop_ends_by_an_error() -> None:
    stopped, ended = threading.Event(), threading.Event()

    def errand() -> None:
        stopped.wait(10)
        ended.set()

    def endless() -> Piece:
        yield errand

    def broken() -> Piece:
        raise ValueError("of the loop")
        yield errand

    def loop() -> None:
        with crew(2, stopped) as some:
            some.start(Score(0, "a"), endless())
            some.start(Score(0, "b"), broken())

    with pytest.raises(ValueError, match="of the loop"):
        loop()
    assert ended.is_set()
