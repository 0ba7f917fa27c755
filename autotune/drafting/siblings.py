"""The files of one data set: ``x_train.csv`` beside ``x_valid.csv`` and ``x_test.csv``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

#: What publishers call each split, the likeliest first.
_SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev", "eval"),
    "test": ("test", "testing"),
}
_PART = re.compile(r"[A-Za-z]+|[^A-Za-z]+")


@dataclass(frozen=True)
class Family:
    """``stem`` is what the files' names share, without separators at its ends; ``splits`` are files by split."""

    stem: str
    splits: Mapping[str, Path]


def family_of(data: Path, files: Iterable[Path]) -> Family:
    """The splits that ``data`` belongs to, of the ``files`` beside it.

    Names differ in the word for the split alone, or have it where ``data`` has none (``x.csv``, ``x-test.csv``).
    ``data`` is the training split when no other is; of two files for one split the likelier name counts.
    """
    own, split = _parted(data)
    beside, found = sorted(files), {split or "train": data}
    for name, words in _SPLITS.items():
        matching = {_word(f): f for f in beside if _belongs(f, data.suffix, own, split, name)}
        if matching and name not in found:
            found[name] = matching[min(matching, key=words.index)]
    if "train" not in found:
        found = {n: f for n, f in found.items() if f != data} | {"train": data}
    stem = re.sub(r"[\W_]+$|^[\W_]+", "", "".join(own).replace("\0", ""))
    return Family(stem, {name: found[name] for name in _SPLITS if name in found})


def _parted(path: Path) -> tuple[list[str], str | None]:
    """The stem's parts with the word for a split taken out, and which split that was."""
    parts = _PART.findall(path.stem)
    for at in reversed(range(len(parts))):
        for split, words in _SPLITS.items():
            if parts[at].casefold() in words:
                return [*parts[:at], "\0", *parts[at + 1:]], split
    return parts, None


def _belongs(file: Path, suffix: str, own: list[str], own_split: str | None, split: str) -> bool:
    """Whether a file is the ``split`` of the data set whose file has the parts ``own``."""
    parts, found = _parted(file)
    if found != split or file.suffix.casefold() != suffix.casefold():
        return False
    mine, other = "".join(own).casefold(), "".join(parts).casefold()
    return other == mine if own_split else re.fullmatch(re.escape(mine) + r"[\W_]\0", other) is not None


def _word(file: Path) -> str:
    """The word for the split in a name that has one."""
    parts: list[str] = [part.casefold() for part in _PART.findall(file.stem)]
    return next(part for part in reversed(parts) if any(part in words for words in _SPLITS.values()))
