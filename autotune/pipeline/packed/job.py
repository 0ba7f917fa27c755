"""An adapter to train: known without any heavy import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search_spaces.adapter import AdapterParams


@dataclass(frozen=True)
class AdapterJob:
    """An adapter to train into the folder ``out``.

    With ``until`` it pauses after that many steps of its schedule: ``out`` is then an adapter like any other, and
    beside it lies what ``resume``, the same folder in a later job, goes on from exactly.
    """

    params: AdapterParams
    out: Path
    seed: int
    until: int | None = None
    resume: Path | None = None
