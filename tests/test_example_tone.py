"""The promises that examples/tone/README.md makes about its data."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples" / "tone"
TONES = ("joy", "sadness", "fear", "surprise")
COUNTS = {"train": 512, "valid": 128, "test": 320}


def rows(split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def words(phrase: str) -> list[str]:
    return re.findall(r"[\w']+", phrase.lower())


def everything() -> list[str]:
    return [row["phrase"] for split in COUNTS for row in rows(split)]


@pytest.mark.parametrize("split", COUNTS)
def test_counts_balance_and_columns(split: str) -> None:
    data = rows(split)
    assert len(data) == COUNTS[split]
    assert Counter(row["tone"] for row in data) == dict.fromkeys(TONES, COUNTS[split] // 4)
    for row in data:
        assert set(row) == {"phrase", "tone"}
        assert row["phrase"] == row["phrase"].strip() != ""


@pytest.mark.parametrize("split", COUNTS)
def test_rows_are_shuffled(split: str) -> None:
    tones = [row["tone"] for row in rows(split)]
    longest = max(len(list(group)) for _, group in itertools.groupby(tones))
    assert longest <= 8


def test_no_phrase_twice() -> None:
    assert max(Counter(" ".join(words(phrase)) for phrase in everything()).values()) == 1


def test_no_near_duplicates_across_splits() -> None:
    tokens = {split: [words(row["phrase"]) for row in rows(split)] for split in COUNTS}
    for one, other in itertools.combinations(COUNTS, 2):
        for left, right in itertools.product(tokens[one], tokens[other]):
            a, b = set(left), set(right)
            assert len(a & b) / len(a | b) < 0.5, (left, right)


def test_no_shared_run_of_six_words_across_splits() -> None:
    seen: dict[tuple[str, ...], str] = {}
    for split in COUNTS:
        for row in rows(split):
            tokens = words(row["phrase"])
            for start in range(len(tokens) - 5):
                run = tuple(tokens[start : start + 6])
                assert seen.setdefault(run, split) == split, " ".join(run)


def test_lengths_vary_within_every_tone() -> None:
    for tone in TONES:
        lengths = sorted(
            len(words(row["phrase"])) for split in COUNTS for row in rows(split) if row["tone"] == tone
        )
        tenth = len(lengths) // 10
        assert lengths[tenth] <= 12
        assert lengths[-tenth] >= 20
        assert lengths[0] <= 6
        assert lengths[-1] >= 35


def test_no_frames_with_slots() -> None:
    for size, most in ((3, 2), (2, 8)):
        openings = Counter(" ".join(words(phrase)[:size]) for phrase in everything())
        opening, used = openings.most_common(1)[0]
        assert used <= most, f"{used} phrases open with {opening!r}"


def test_length_and_first_word_do_not_give_the_tone_away() -> None:
    """A guess from the opening word alone, learned on train, must stay near chance on test."""
    votes: dict[str, Counter[str]] = {}
    for row in rows("train"):
        votes.setdefault(words(row["phrase"])[0], Counter())[row["tone"]] += 1
    test = rows("test")
    right = sum(
        votes.get(words(row["phrase"])[0], Counter({"joy": 1})).most_common(1)[0][0] == row["tone"]
        for row in test
    )
    assert right / len(test) < 0.4


def test_the_tone_is_not_named() -> None:
    stems = {"joy": "joy", "sadness": "sad", "fear": "fear", "surprise": "surpris"}
    for split in COUNTS:
        for row in rows(split):
            named = [word for word in words(row["phrase"]) if word.startswith(stems[row["tone"]])]
            assert not named, row
