"""What the tests of workers have them do; in a module of its own, as a worker in another process imports it."""

from __future__ import annotations

import os
import time

from autotune.errors import DataError, Problem
from autotune.pipeline.progress import Report


def add(a: int, b: int) -> int:
    print("noise on stdout")
    os.write(2, b"noise on stderr")
    return a + b


def refuse() -> None:
    raise DataError([Problem("rows.jsonl", "line 3", "empty", "a text")])


def stumble() -> None:
    raise ZeroDivisionError("what\nnow")


def slow(report: Report) -> str:
    for done in range(4):
        report(done, 4, f"part {done}")
        time.sleep(0.3)
    return "done"
