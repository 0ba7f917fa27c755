"""What a column looks like decides what it can be."""

from __future__ import annotations

import uuid

import pytest

from autotune.drafting.columns import Column, columns_of, estimated_tokens


def column(*values: str | None, name: str = "c") -> Column:
    return Column(name, values)


def test_columns_are_those_of_all_rows_in_the_files_order() -> None:
    found = columns_of([{"b": 1, "a": "x"}, {"a": None, "c": [1], "b": True}])
    assert [(c.name, c.values) for c in found] == [("b", ("1", "true")), ("a", ("x", None)), ("c", (None, None))]
    assert [c.unreadable for c in found] == [0, 1, 2]


def test_declared_columns_count_even_without_rows() -> None:
    assert [c.name for c in columns_of([], ("a", "b"))] == ["a", "b"]


def test_few_short_texts_that_come_again_are_categorical() -> None:
    assert column(*["yes", "no"] * 3).is_categorical
    assert not column(*["yes", "no"] * 2).is_categorical  # each but twice
    assert not column(*["the same"] * 9).is_categorical
    assert not column(*["an answer of many more words than any label has", "no"] * 9).is_categorical
    assert not column(*(f"{i}" for i in range(300))).is_categorical


def test_free_text_is_varied_and_of_words() -> None:
    assert column(*(f"the word {i}" for i in range(9))).is_free_text
    assert column("今日は天気がいい", "明日は雨が降る", "昨日は寒かった").is_free_text  # no spaces between its words
    assert not column(*["the same words"] * 9).is_free_text
    assert not column(*(f"{i}.5" for i in range(9))).is_free_text
    assert not column(*(f"item-{i}" for i in range(9))).is_free_text


@pytest.mark.parametrize("marks", [[str(i) for i in range(1000, 1010)], [str(uuid.uuid4()) for _ in range(5)]])
def test_marks_in_every_row_count_rows(marks: list[str]) -> None:
    assert column(*marks).counts_rows
    assert not column(*marks, marks[0]).counts_rows
    assert not column(*marks, "").counts_rows


def test_numbers_out_of_order_are_no_count() -> None:
    assert not column("3", "1", "2").counts_rows


@pytest.mark.parametrize("name", ["tone", "two words", "Übung", "a,b", "1", "a-b", "naïve #1", "名前"])
def test_names_that_a_template_takes(name: str) -> None:
    assert column(name=name).templates_take_it


@pytest.mark.parametrize("name", ["a.b", "a[0]", "a:b", "a!", "{a", "a}", "", " ", "{a}"])
def test_names_that_no_template_takes(name: str) -> None:
    assert not column(name=name).templates_take_it


def test_tokens_are_estimated_from_words_and_from_letters_where_words_are_long() -> None:
    assert estimated_tokens("a b c d e") == 7
    assert estimated_tokens("Donaudampfschifffahrtsgesellschaft") == 9
    assert estimated_tokens("") == 0
