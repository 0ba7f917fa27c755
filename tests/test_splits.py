from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.errors import DataError
from autotune.pipeline.data import Row
from autotune.pipeline.splits import cut_splits, duplicates_across, hash_share


def rows_of(prompts: list[str]) -> list[Row]:
    return [Row({"text": p}, "train.jsonl", line) for line, p in enumerate(prompts, 1)]


MANY = [f"prompt {i}" for i in range(2000)]


def membership(prompts: list[str], have: set[str]) -> dict[str, str]:
    splits = cut_splits(rows_of(prompts), prompts, have)
    return {row.values["text"]: name for name, rows in splits.items() for row in rows}


def test_shares() -> None:
    splits = cut_splits(rows_of(MANY), MANY, {"train"})
    for name in ("valid", "test"):
        assert abs(len(splits[name]) / len(MANY) - 0.15) < 0.03
    assert sum(map(len, splits.values())) == len(MANY)


def test_the_hash_never_changes() -> None:
    """Another version that cut differently would move rows from test to train."""
    assert hash_share("prompt 0") == pytest.approx(0x481d04be / 2**32, abs=1e-9)


def test_only_missing_splits_are_cut_and_one_does_not_move_the_other() -> None:
    both = membership(MANY, {"train"})
    only_valid = membership(MANY, {"train", "test"})
    in_valid = [{p for p, name in cut.items() if name == "valid"} for cut in (both, only_valid)]
    assert in_valid[0] == in_valid[1]
    assert set(only_valid.values()) == {"train", "valid"}
    assert set(membership(MANY, {"train", "valid", "test"}).values()) == {"train"}


@given(st.data())
def test_order_and_other_rows_do_not_matter(data: st.DataObject) -> None:
    prompts = [*MANY[:200], *data.draw(st.lists(st.text(min_size=1), max_size=20))]
    shuffled = data.draw(st.permutations(prompts))
    whole = membership(prompts, {"train"})
    assert membership(shuffled, {"train"}) == whole
    assert membership(prompts[:100], {"train"}).items() <= whole.items()


@given(st.lists(st.sampled_from(MANY[:60]), max_size=100))
def test_equal_prompts_never_straddle(more: list[str]) -> None:
    prompts = [*MANY[:60], *more]
    splits = cut_splits(rows_of(prompts), prompts, {"train"})
    sets = [{row.values["text"] for row in rows} for rows in splits.values()]
    assert sum(map(len, sets)) == len(set().union(*sets))


def test_rows_keep_their_order() -> None:
    for rows in cut_splits(rows_of(MANY), MANY, {"train"}).values():
        assert [row.line for row in rows] == sorted(row.line for row in rows)


def test_too_few_rows() -> None:
    with pytest.raises(DataError, match=r"train.jsonl: 1 rows, of which none falls to .*a file for every split"):
        cut_splits(rows_of(["a"]), ["a"], {"train"})


def test_duplicates_name_both_places() -> None:
    prompts = {"train": ["a", "b", "c", "b"], "valid": ["x", "b"], "test": ["x", "c", "c"]}
    rows = {
        name: [Row({}, f"{name}.jsonl", line) for line in range(1, len(texts) + 1)]
        for name, texts in prompts.items()
    }
    assert duplicates_across(rows, prompts) == [
        "train.jsonl line 2 (train) has the prompt of valid.jsonl line 2 (valid)",
        "train.jsonl line 3 (train) has the prompt of test.jsonl line 2 (test)",
        "train.jsonl line 4 (train) has the prompt of valid.jsonl line 2 (valid)",
        "valid.jsonl line 1 (valid) has the prompt of test.jsonl line 1 (test)",
    ]


def test_duplicates_within_a_split_are_none_of_its_business() -> None:
    rows = {"train": rows_of(["a", "a"])}
    assert duplicates_across(rows, {"train": ["a", "a"]}) == []


def test_many_duplicates_are_counted() -> None:
    texts = [str(i) for i in range(50)]
    rows = {"train": rows_of(texts), "test": rows_of(texts)}
    sentences = duplicates_across(rows, {"train": texts, "test": texts})
    assert len(sentences) == 21
    assert sentences[-1] == "and 30 more prompts that stand in two splits"
