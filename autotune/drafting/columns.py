"""What the columns of a data file look like: how full, how varied, how long. Facts alone; guess.py draws the
conclusions."""

from __future__ import annotations

import math
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from autotune.pipeline.data import as_text
from objectives.templates import template_columns

#: A label is at most so long; what is longer is said, not chosen.
_LABEL_WORDS, _LABEL_CHARACTERS = 5, 60
#: Rows that each label has on average, at least.
LABEL_ROWS = 3
MOST_LABELS = 200
_NUMBER = re.compile(r"[-+]?(\d+([.,]\d+)*|\.\d+)([eE][-+]?\d+)?%?")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Column:
    """A named column with one text a row: None where it is null, a list or an object, which no template takes."""

    name: str
    values: tuple[str | None, ...]

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Those with something in them."""
        return tuple(v for v in self.values if v is not None and v.strip())

    @cached_property
    def counts(self) -> Counter[str]:
        """How many rows have each text, the most frequent first."""
        return Counter(dict(sorted(Counter(self.texts).items(), key=lambda item: (-item[1], item[0]))))

    @property
    def distinct(self) -> int:
        return len(self.counts)

    @property
    def unreadable(self) -> int:
        """Rows whose value is no text, number, true or false."""
        return sum(v is None for v in self.values)

    @cached_property
    def words(self) -> float:
        """The median number of words."""
        return statistics.median(len(t.split()) for t in self.texts) if self.texts else 0.0

    @cached_property
    def is_numeric(self) -> bool:
        return bool(self.texts) and all(_NUMBER.fullmatch(t.strip()) for t in self.counts)

    @cached_property
    def is_categorical(self) -> bool:
        """Few short texts that come again: what a model can choose from."""
        return (
            2 <= self.distinct <= MOST_LABELS
            and len(self.texts) >= LABEL_ROWS * self.distinct
            and all(len(t.split()) <= _LABEL_WORDS and len(t) <= _LABEL_CHARACTERS for t in self.counts)
        )

    @cached_property
    def is_free_text(self) -> bool:
        """Varied, and words rather than numbers or marks of one word."""
        return (
            2 * self.distinct > len(self.texts) and not self.is_numeric
            and (self.words >= 2 or not all(_is_one_word(t) for t in self.counts))
        )

    @cached_property
    def counts_rows(self) -> bool:
        """A different mark of one word in every row: whole numbers in order, or UUIDs."""
        if self.distinct < len(self.values) or self.distinct < 2:
            return False
        if all(_UUID.fullmatch(t) for t in self.texts):
            return True
        numbers = [int(t) for t in self.texts if re.fullmatch(r"\d{1,18}", t)]
        return len(numbers) == self.distinct and numbers == sorted(numbers)

    @property
    def templates_take_it(self) -> bool:
        """Whether ``{name}`` can stand in a template."""
        try:
            return template_columns("{" + self.name + "}") == [self.name]
        except ValueError:
            return False


def _is_one_word(text: str) -> bool:
    # Chinese, Japanese and Thai put no spaces between words; their letters are of category Lo.
    return " " not in text.strip() and not any(unicodedata.category(c) == "Lo" for c in text)


def columns_of(rows: Sequence[dict[str, Any]], declared: Sequence[str] | None = None) -> list[Column]:
    """The columns in the file's order, those of every row together. ``declared`` are those that the format names."""
    names = list(declared) if declared is not None else list(dict.fromkeys(name for row in rows for name in row))
    return [Column(name, tuple(as_text(row.get(name)) for row in rows)) for name in names]


def estimated_tokens(text: str) -> int:
    """About how many tokens a tokenizer makes of a text: 1.4 a word, or one of four letters where words are long.

    Only for defaults: a study's own figures come from its model's tokenizer.
    """
    return math.ceil(max(1.4 * len(text.split()), len(text) / 4))
