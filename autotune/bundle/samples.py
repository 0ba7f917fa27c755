"""The sample rows of a bundle: a few rows with the answer that the measured artifact gave, chosen by their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autotune import predictions
from autotune.bundle.choice import Chosen
from autotune.deployment import Deployment, Pair, Split, rows_of
from autotune.errors import ConfigError, Problem
from autotune.storage.store import Store


@dataclass(frozen=True)
class Samples:
    """``lines`` of samples.jsonl, of the ``total`` rows of a ``split``; None where no row is to travel."""

    lines: tuple[str, ...]
    total: int | None
    split: Split

    def as_json(self) -> dict[str, Any]:
        return {"count": len(self.lines), "of": self.total, "split": self.split}


def draw(chosen: Chosen, store: Store, found: Deployment, count: int) -> Samples:
    """``count`` rows, or all there are: of the test split with the certificate's answers, or of the validation split
    where the artifact was not measured again. The same rows for every trial of a study.

    Raises InputError where the rows or the answers are not to be had any more, or belong to others.
    """
    wanted = "the answers as autotune run kept them, or --samples 0"
    split: Split = "test" if chosen.look else "valid"
    if count == 0:
        return Samples((), None, split)
    path = predictions.path_of(chosen.run.root / "predictions", chosen.trial.number, certified=chosen.look is not None)
    try:
        told = predictions.load_answers(path)
    except OSError as error:
        raise ConfigError([Problem(str(path), "", error.strerror or str(error), wanted)]) from None
    pairs = rows_of(chosen.run, store, split, found)
    if [reference for reference, _ in told] != [answer for _, answer in pairs]:
        raise ConfigError([Problem(str(path), "", f"no answers to the {len(pairs)} {split} rows of the run", wanted)])
    rows = picked(pairs, count)
    return Samples(tuple(_line(row, pairs[row], told[row][1]) for row in rows), len(pairs), split)


def picked(pairs: Sequence[Pair], count: int) -> list[int]:
    """The rows whose prompts have the smallest sha256, in their order."""
    by_hash = sorted(range(len(pairs)), key=lambda row: hashlib.sha256(pairs[row][0].encode()).digest())
    return sorted(by_hash[:count])


def _line(row: int, pair: Pair, answer: str) -> str:
    prompt, expected = pair
    return json.dumps({"row": row, "prompt": prompt, "expected": expected, "answer": answer}, sort_keys=True,
                      ensure_ascii=False)
