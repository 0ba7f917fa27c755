"""Answers row by row, kept in the run folder: what accuracies, ties and a reader's own questions are made of."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from autotune.errors import ConfigError, Problem
from autotune.storage.store import write_atomically

FIELDS = ("row", "reference", "answer", "right")


def path_of(folder: Path, trial: int, *, certified: bool = False) -> Path:
    """The file of a trial's answers in the run's ``predictions`` folder: to the validation rows, or with ``certified``
    those to the test rows that its certificate asked."""
    return folder / f"{'certificate-' if certified else ''}trial-{trial}.csv"


def is_right(answer: str, reference: str) -> bool:
    """Whether an answer counts as right; white space around it does not matter."""
    return answer.strip() == reference.strip()


def save(path: Path, references: Sequence[str], answers: Sequence[str]) -> None:
    """One line a row of the split, in its order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for row, (reference, answer) in enumerate(zip(references, answers, strict=True)):
        writer.writerow((row, reference, answer, int(is_right(answer, reference))))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())


def load_right(path: Path) -> tuple[bool, ...]:
    """Which rows were answered right. Raises OSError where nothing was saved."""
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(line["right"] == "1" for line in csv.DictReader(file))


def load_answers(path: Path) -> list[tuple[str, str]]:
    """(reference, answer) of every row. Raises OSError where nothing was saved."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(line["reference"], line["answer"]) for line in csv.DictReader(file)]


def kept(folder: Path, trials: Iterable[int]) -> dict[int, tuple[bool, ...]]:
    """``load_right`` of a run's trials by number; those whose answers were not saved are left out.

    Raises:
        ConfigError: a file is not as ``save`` wrote it.
    """
    found = {}
    for number in trials:
        path = path_of(folder, number)
        try:
            found[number] = load_right(path)
        except FileNotFoundError:
            continue
        except (OSError, KeyError, ValueError, csv.Error) as error:
            raise ConfigError([Problem(str(path), "", f"cannot be read: {type(error).__name__} {error}",
                                       "the file as autotune run wrote it")]) from error
    return found
