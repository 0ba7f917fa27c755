from __future__ import annotations

import pytest

from autotune.errors import DataError
from autotune.pipeline.data import Row
from autotune.pipeline.labels import choose_labels


def rows(name: str, count: int) -> list[Row]:
    return [Row({}, f"{name}.jsonl", line) for line in range(1, count + 1)]


def choose(given: list[str] | None, **answers: list[str]) -> tuple[tuple[str, ...], list[str]]:
    labels, problems = choose_labels(given, {n: rows(n, len(a)) for n, a in answers.items()}, answers)
    return labels, [str(p) for p in problems]


def test_inferred_from_training_answers_and_sorted() -> None:
    labels, problems = choose(None, train=["joy", "fear", "joy"], valid=["fear", "feat"])
    assert labels == ("fear", "joy")
    assert problems == [
        "valid.jsonl: line 2: answer 'feat' is no label, did you mean 'fear'?; accepted: fear, joy"
    ]


def test_given_labels_keep_their_order() -> None:
    labels, problems = choose(["joy", "fear"], train=["joy", "sadness"], test=["Joy"])
    assert labels == ("joy", "fear")
    assert [p.split(";")[0] for p in problems] == [
        "train.jsonl: line 2: answer 'sadness' is no label",
        "test.jsonl: line 1: answer 'Joy' is no label, did you mean 'joy'?",
    ]


@pytest.mark.parametrize(
    ("given", "answers", "message"),
    [
        (["joy"], ["joy"], "1 label.*at least two"),
        (["joy", "joy"], ["joy"], "'joy' twice"),
        (["joy", " "], ["joy"], "blank label"),
        (None, ["joy", "joy"], "one answer in every training row .*'joy'"),
        (None, [str(i) for i in range(201)], "201 different training answers.*task: generate"),
    ],
)
def test_label_sets_that_are_none(given: list[str] | None, answers: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        choose(given, train=answers)


def test_two_hundred_labels_are_still_labels() -> None:
    assert len(choose(None, train=[str(i) for i in range(200)])[0]) == 200
