"""How a stage says how far it is: a plain function, so that stages need to know nothing of terminals."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    def __call__(self, done: float, total: float, note: str = "") -> None: ...


def silent(done: float, total: float, note: str = "") -> None:
    """A Report that says nothing."""
