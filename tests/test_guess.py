"""Columns of data sets as they are published, and what a person would say of them."""

from __future__ import annotations

import itertools

import pytest

from autotune.drafting.columns import Column
from autotune.drafting.guess import guess_answer, guess_prompt, guess_task, is_mark, unused

N = 60


def texts(name: str, words: int = 6) -> Column:
    return Column(name, tuple(f"{' '.join(['word'] * words)} {name} {i}" for i in range(N)))


def kinds(name: str, *labels: str) -> Column:
    return Column(name, tuple(itertools.islice(itertools.cycle(labels), N)))


def ids(name: str = "id") -> Column:
    return Column(name, tuple(str(i) for i in range(N)))


def lists(name: str) -> Column:
    return Column(name, (None,) * N)


SURE = [
    ([texts("phrase"), kinds("tone", "joy", "fear")], "tone", ("phrase",), "choice"),
    ([ids("Ticket-Nr"), texts("Anfrage"), kinds("Kategorie", "Rechnung", "Versand")],
     "Kategorie", ("Anfrage",), "choice"),
    ([texts("text"), kinds("label", "0", "1"), kinds("label_text", "neg", "pos")], "label_text", ("text",), "choice"),
    ([texts("instruction"), texts("input"), texts("output", 30)], "output", ("instruction", "input"), "generate"),
    ([texts("instruction"), texts("context"), texts("response"), kinds("category", "qa", "open")],
     "response", ("instruction", "context"), "generate"),
    ([ids(), texts("sentence1"), texts("sentence2"), kinds("label", "0", "1")],
     "label", ("sentence1", "sentence2"), "choice"),
    ([texts("Frage"), texts("Antwort"), kinds("lang", "de", "en")], "Antwort", ("Frage",), "generate"),
    ([texts("réponse"), texts("question")], "réponse", ("question",), "generate"),
    ([texts("question"), texts("sql")], "sql", ("question",), "generate"),
    ([texts("Beschwerde"), kinds("Zuständig", "Werk", "Vertrieb", "Einkauf")],
     "Zuständig", ("Beschwerde",), "choice"),
    ([kinds("userLocale", "en"), texts("userMessage"), kinds("intentClass", "buy", "ask")],
     "intentClass", ("userMessage",), "choice"),
]


@pytest.mark.parametrize(("columns", "answer", "prompt", "task"), SURE, ids=lambda v: v if isinstance(v, str) else None)
def test_what_is_clear_is_guessed_surely(
    columns: list[Column], answer: str, prompt: tuple[str, ...], task: str
) -> None:
    answered = guess_answer(columns)
    assert answered
    assert (answered.value, answered.sure) == (answer, True)
    prompted = guess_prompt(columns, answer)
    assert prompted
    assert (prompted.value, prompted.sure) == (prompt, True)
    tasked = guess_task(next(c for c in columns if c.name == answer))
    assert (tasked.value, tasked.sure) == (task, True)


UNSURE = [
    [texts("text"), kinds("type", "a", "b"), kinds("priority", "high", "low")],  # either may be asked for
    [texts("question"), texts("sql"), kinds("language", "de", "en")],  # sql may be the answer
    [ids(), texts("title"), texts("context"), lists("answers"), kinds("topic", "a", "b")],  # the true one is no text
    [texts("left"), texts("right")],
    [texts("text"), kinds("stage", "1", "2", "3")],
]


@pytest.mark.parametrize("columns", UNSURE)
def test_what_is_not_clear_is_not_taken_silently(columns: list[Column]) -> None:
    found = guess_answer(columns)
    assert found
    assert not found.sure
    assert found.why


def test_several_texts_without_known_names_are_a_guess() -> None:
    found = guess_prompt([texts("a"), texts("b"), kinds("label", "x", "y")], "label")
    assert found
    assert (found.value, found.sure) == (("a", "b"), False)


def test_a_prompt_column_with_nulls_gives_way_to_whole_ones() -> None:
    holes = Column("context", (None, *texts("context").values[1:]))
    found = guess_prompt([texts("question"), holes, kinds("label", "x", "y")], "label")
    assert found
    assert found.value == ("question",)
    assert unused(holes) == "null, a list or an object in 1 rows"


def test_there_may_be_nothing_to_answer_and_nothing_to_ask() -> None:
    assert guess_answer([texts("text")]) is None
    assert guess_answer([]) is None
    assert guess_prompt([kinds("label", "x", "y"), ids()], "label") is None


def test_labels_of_few_rows_are_asked() -> None:
    few = guess_task(Column("label", ("a", "b", "c", "a", "b", "c")))
    assert (few.value, few.sure) == ("generate", False)


def test_why_a_column_is_left_out() -> None:
    assert is_mark(ids())
    assert is_mark(Column("doc_id", tuple(f"x{i * 7 % 11}" for i in range(11))))
    assert not is_mark(texts("text"))
    assert unused(ids()) == "another in every row, which names rows"
    assert unused(kinds("source", "web")) == "the same in every row"
    assert unused(lists("spans")) == "null, lists or objects in every row"
    assert unused(Column("score", tuple(str(i % 7 / 2) for i in range(N)))) == "numbers"
