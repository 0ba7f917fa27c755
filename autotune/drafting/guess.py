"""Which column is the answer, which make the prompt, and what the task is: guessed from names and looks. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from autotune.drafting.columns import Column
from autotune.pipeline.tokens import Task
from autotune.report.wording import join

T = TypeVar("T")

_BY_NAME = "its name"

_IDS = "id ids uid uuid guid key index idx nr no num number row line hash nummer numero"
_ANSWERS = """answer answers label labels target targets output outputs response responses completion completions
    expected gold reply solution chosen summary translation assistant antwort antworten ausgabe loesung
    losung ziel reponse sortie etiquette respuesta salida etiqueta risposta risposte"""
_CATEGORIES = """category categories class classes sentiment tone emotion topic intent type kind genre language lang
    priority severity status department stars rating polarity stance kategorie kategorien klasse thema art stimmung
    absicht categorie classe categoria clase tipo sentimento"""
_PROMPTS = """text texts phrase question questions prompt instruction instructions input inputs sentence sentences
    query review message body content title subject context passage premise hypothesis utterance tweet comment document
    article headline description dialogue user source frage satz nachricht anfrage anweisung eingabe betreff titel
    beschreibung kommentar phrases texte demande titre texto frase pregunta mensaje titulo testo domanda"""


@dataclass(frozen=True)
class Guess(Generic[T]):
    """``why`` ends the sentence "the answer is …, for …". What is not ``sure`` is asked, never taken silently."""

    value: T
    why: str
    sure: bool


def guess_answer(columns: Sequence[Column]) -> Guess[str] | None:
    """The column to be answered; None where no column can be."""
    found = _answer(columns)
    hidden = [c for c in columns if _named(c, _ANSWERS) and not c.texts]
    if found is None or not hidden or found.why == _BY_NAME:
        return found
    return Guess(found.value, f"{found.why}; {_quoted(hidden)} holds nothing that a template takes", False)


def _answer(columns: Sequence[Column]) -> Guess[str] | None:
    usable = [c for c in columns if c.texts and c.distinct > 1 and not is_mark(c)]
    named = _without_codes([c for c in usable if _named(c, _ANSWERS)])
    if named:
        return _one_of(named, _BY_NAME)
    texts = [c for c in usable if c.is_free_text]
    unnamed = [c for c in texts if not _named(c, _PROMPTS)]
    categorical = _without_codes([c for c in usable if c.is_categorical])
    called = [c for c in categorical if _named(c, _CATEGORIES)]
    if called:  # of two texts one may be the answer, and this but what it is about
        return _one_of(called, f"its name and its {_few(called[-1])}", enough=len(texts) < 2 or not unnamed)
    if categorical:
        return _one_of(categorical, f"its {_few(categorical[-1])}",
                       enough=len(texts) < 2 and not categorical[-1].is_numeric)
    if len(texts) == 2 and len(unnamed) == 1:
        return Guess(unnamed[0].name, f"{_quoted([c for c in texts if c not in unnamed])} is what is asked", True)
    if len(texts) >= 2:
        return Guess(texts[-1].name, "it is the last text", False)
    return Guess(usable[-1].name, "it is the last column", False) if len(usable) >= 2 else None


def guess_prompt(columns: Sequence[Column], answer: str) -> Guess[tuple[str, ...]] | None:
    """The columns that the answer follows from, in the file's order; None where no other column has any text."""
    others = [c for c in columns if c.name != answer and c.texts and c.distinct > 1 and not is_mark(c)]
    whole = [c for c in others if not c.unreadable] or others
    texts = [c for c in whole if c.is_free_text]
    named = [c for c in texts if _named(c, _PROMPTS) and not _named(c, _ANSWERS)]
    if named:
        return Guess(_names(named), "their names" if len(named) > 1 else "its name", True)
    unnamed = [c for c in texts if not _named(c, _ANSWERS)]
    if len(unnamed) == 1:
        return Guess(_names(unnamed), "it is the only varied text", True)
    if unnamed:
        return Guess(_names(unnamed), "they are varied texts", False)
    if len(whole) == 1:
        return Guess(_names(whole), "no other column varies", True)
    return Guess((max(whole, key=lambda c: c.words).name,), "its texts are the longest", False) if whole else None


def guess_task(answer: Column) -> Guess[Task]:
    """``choice`` among few short answers that come again, else ``generate``."""
    if answer.is_categorical:
        return Guess("choice", _few(answer), True)
    repeats = len(answer.texts) / max(1, answer.distinct)
    found = f"{answer.distinct} different answers in {len(answer.texts)} rows"
    # Few rows: whether labels would come again cannot be told from them.
    clear = repeats < 1.5 or answer.words > 5
    return Guess("generate", found, clear)


def unused(column: Column) -> str:
    """Why a column is left out of prompt and answer."""
    if column.unreadable == len(column.values):
        return "null, lists or objects in every row"
    if not column.texts:
        return "empty in every row"
    if column.distinct == 1:
        return "the same in every row"
    if is_mark(column):
        return "another in every row, which names rows"
    if column.unreadable:
        return f"null, a list or an object in {column.unreadable} rows"
    return "numbers" if column.is_numeric else "neither asked nor answered, as it seems"


def is_mark(column: Column) -> bool:
    """An id: another in every row, and called or counted like one."""
    tokens = _tokens(column.name)
    called = bool(tokens) and tokens[-1] in _IDS.split() and column.distinct == len(column.values)
    return column.counts_rows or (called and column.words <= 1)


def _one_of(found: Sequence[Column], why: str, enough: bool = True) -> Guess[str]:
    if len(found) == 1:
        return Guess(found[0].name, why, enough)
    return Guess(found[-1].name, f"it is the last of {_quoted(found)}, which all may be", False)


def _without_codes(found: Sequence[Column]) -> list[Column]:
    """Leaves out numbers that only stand for another column's names, such as ``label`` beside ``label_text``."""
    named = [c for c in found if not c.is_numeric]
    return [c for c in found if not (c.is_numeric and any(_same_split(c, other) for other in named))]


def _same_split(a: Column, b: Column) -> bool:
    return a.distinct == b.distinct == len(set(zip(a.values, b.values, strict=True)))


def _few(column: Column) -> str:
    return f"{column.distinct} short values that come again and again"


def _named(column: Column, words: str) -> bool:
    return not set(words.split()).isdisjoint(_tokens(column.name))


def _tokens(name: str) -> list[str]:
    """``userMessage_2`` → user, message; without accents."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    plain = unicodedata.normalize("NFKD", parted.replace("ß", "ss")).encode("ascii", "ignore").decode().casefold()
    return re.findall(r"[a-z]+", plain)


def _names(columns: Sequence[Column]) -> tuple[str, ...]:
    return tuple(c.name for c in columns)


def _quoted(columns: Sequence[Column]) -> str:
    return join([c.name for c in columns])
