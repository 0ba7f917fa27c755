"""Splits that are cut, not given, and prompts that stand in two given ones."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

from autotune.errors import DataError, Problem
from autotune.pipeline.data import SHOWN, Row

#: Shares of all rows. Each split has its own stretch of the hash: that one is given does not move the other.
TEST_SHARE = 0.15
VALID_SHARE = 0.15


def hash_share(prompt: str) -> float:
    """A number in [0, 1) that depends on the prompt alone: the first 8 bytes of its sha256."""
    return int.from_bytes(hashlib.sha256(prompt.encode("utf-8")).digest()[:8], "big") / 2**64


def cut_splits(rows: Sequence[Row], prompts: Sequence[str], have: Collection[str]) -> dict[str, list[Row]]:
    """Cut the splits that are not in ``have`` from the training rows, 15 % each.

    ``prompts[i]`` is the rendered prompt of ``rows[i]``. A row's split follows from a hash of its prompt:
    equal prompts stay together, and neither order nor other rows matter. Returns train and the cut splits.

    Raises:
        DataError: too few rows, so that a split would be empty.
    """
    missing = [name for name in ("valid", "test") if name not in have]
    splits: dict[str, list[Row]] = {name: [] for name in ("train", *missing)}
    for row, prompt in zip(rows, prompts, strict=True):
        share = hash_share(prompt)
        if share < TEST_SHARE:
            name = "test"
        elif share < TEST_SHARE + VALID_SHARE:
            name = "valid"
        else:
            name = "train"
        splits[name if name in splits else "train"].append(row)
    empty = [name for name, members in splits.items() if not members]
    if empty:
        file = rows[0].file if rows else "train"
        found = f"{len(rows)} rows, of which none falls to {' or '.join(empty)}"
        raise DataError([Problem(file, "", found, "more rows, or a file for every split")])
    return splits


def duplicates_across(rows: Mapping[str, Sequence[Row]], prompts: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for each row whose prompt also stands in a later split (train < valid < test).

    Such a row makes the score of the later split look better than it is. ``prompts[name][i]`` belongs
    to ``rows[name][i]``. At most ``SHOWN`` sentences, then a count.
    """
    names = [name for name in ("train", "valid", "test") if name in rows]
    first: dict[str, dict[str, Row]] = {}
    for name in names:
        pairs = zip(prompts[name], rows[name], strict=True)
        first[name] = {}
        for prompt, row in pairs:
            first[name].setdefault(prompt, row)
    sentences = []
    for at, name in enumerate(names):
        for prompt, row in zip(prompts[name], rows[name], strict=True):
            for later in names[at + 1 :]:
                other = first[later].get(prompt)
                if other is not None:
                    there = f"{other.file} {other.where} ({later})"
                    sentences.append(f"{row.file} {row.where} ({name}) has the prompt of {there}")
    if len(sentences) > SHOWN:
        rest = len(sentences) - SHOWN
        return [*sentences[:SHOWN], f"and {rest} more prompts that stand in two splits"]
    return sentences
