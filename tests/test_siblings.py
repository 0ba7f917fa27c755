"""Files of one data set find each other, and strangers do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.drafting.siblings import family_of


@pytest.mark.parametrize(("data", "beside", "splits", "stem"), [
    ("tone_train.jsonl", ["tone_val.jsonl", "tone_test.jsonl", "mood_test.jsonl"],
     {"train": "tone_train.jsonl", "valid": "tone_val.jsonl", "test": "tone_test.jsonl"}, "tone"),
    ("tone.csv", ["tone-test.csv", "tone.dev.csv", "tonetest.csv", "tone_train.csv", "tone_x_test.csv"],
     {"train": "tone.csv", "valid": "tone.dev.csv", "test": "tone-test.csv"}, "tone"),
    ("train-00000-of-00001.parquet", ["test-00000-of-00001.parquet", "test-00000-of-00002.parquet"],
     {"train": "train-00000-of-00001.parquet", "test": "test-00000-of-00001.parquet"}, "00000-of-00001"),
    ("Train.csv", ["Test.CSV", "test.jsonl"], {"train": "Train.csv", "test": "Test.CSV"}, ""),
    ("tone_test.jsonl", ["tone_train.jsonl"], {"train": "tone_train.jsonl", "test": "tone_test.jsonl"}, "tone"),
    ("tone_test.jsonl", [], {"train": "tone_test.jsonl"}, "tone"),
    ("train.json", ["dev.json", "validation.json"], {"train": "train.json", "valid": "validation.json"}, ""),
    ("training_contest.csv", ["test_contest.csv"], {"train": "training_contest.csv", "test": "test_contest.csv"},
     "contest"),
])
def test_families(data: str, beside: list[str], splits: dict[str, str], stem: str) -> None:
    family = family_of(Path(data), iter(Path(name) for name in [*beside, data]))
    assert {split: path.name for split, path in family.splits.items()} == splits
    assert family.stem == stem
