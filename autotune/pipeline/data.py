"""Rows from .jsonl, .json, .csv and .parquet files and from data sets; every bad row is reported at once.

A value may be text, a number or a boolean; the latter two become text as JSON writes them (``3``, ``0.5``,
``true``). Null, lists and objects are refused: guessing a text for them would train on the guess.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autotune.errors import DataError, Problem, nearest

ACCEPTED_SOURCES = (
    "a .jsonl, .json, .csv or .parquet file, "
    "or a data set org/name, org/name:split or org/name@revision:split"
)
#: Problems named before the rest is only counted.
SHOWN = 20


@dataclass(frozen=True)
class Row:
    """One row: column → text, and where it stands. ``line`` counts from 1; for formats without lines
    (.parquet, data sets) it is the row's number and ``unit`` says so.
    """

    values: dict[str, str]
    file: str
    line: int
    unit: Literal["line", "row"] = "line"

    @property
    def where(self) -> str:
        return f"{self.unit} {self.line}"


@dataclass(frozen=True)
class RawRow:
    """A row as its format gives it, not yet checked."""

    values: dict[str, Any]
    line: int


@dataclass(frozen=True)
class RawTable:
    """What a reader makes of a source. ``columns`` are those the format declares, None where each row
    brings its own.
    """

    file: str
    unit: Literal["line", "row"]
    rows: list[RawRow]
    problems: list[Problem]
    columns: tuple[str, ...] | None = None


def read_rows(
    source: str, base_dir: Path, split_name: str, columns: Sequence[str], may_be_empty: Iterable[str] = ()
) -> list[Row]:
    """Read the named columns of every row; relative paths start at ``base_dir``.

    ``split_name`` (train, valid or test) picks the split of a data set that names none. Values of
    ``may_be_empty`` columns may be blank; any other blank value is a bad row.

    Raises:
        DataError: with a problem for each bad row (the first ``SHOWN`` by name, the rest counted).
    """
    rows, problems = scan_rows(source, base_dir, split_name, columns, may_be_empty)
    raise_problems(problems)
    return rows


def scan_rows(
    source: str, base_dir: Path, split_name: str, columns: Sequence[str], may_be_empty: Iterable[str] = ()
) -> tuple[list[Row], list[Problem]]:
    """As ``read_rows``, but problems are returned, so that those of several sources can be told together."""
    table = read_table(source, base_dir, split_name)
    problems = list(table.problems)
    absent = _absent_columns(table, columns)
    for column, available in absent.items():
        found = f"no column {column!r}{nearest(column, available)}"
        problems.append(Problem(table.file, "", found, f"one of {', '.join(available) or 'none'}"))
    rows: list[Row] = []
    optional = set(may_be_empty)
    for raw in table.rows:
        values, bad = _row_values(table, raw, [c for c in columns if c not in absent], optional)
        problems += bad
        if not bad:
            rows.append(Row(values, table.file, raw.line, table.unit))
    if not table.rows and not problems:
        problems.append(Problem(table.file, "", "no rows", "at least one row"))
    return rows, sorted(problems, key=_line_number)


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise a DataError if there is any problem, the first ``SHOWN`` by name and the rest as a count."""
    if not problems:
        return
    shown, rest = list(problems[:SHOWN]), len(problems) - SHOWN
    if rest > 0:
        shown.append(Problem(problems[SHOWN].file, "", f"and {rest} more", "these mended first"))
    raise DataError(shown)


def _line_number(problem: Problem) -> int:
    last = problem.where.rsplit(" ", 1)[-1]
    return int(last) if last.isdecimal() else 0


def _absent_columns(table: RawTable, columns: Sequence[str]) -> dict[str, list[str]]:
    """Columns that no row has → the ones there are: one problem, not one a row."""
    if table.columns is not None:
        available = list(table.columns)
    elif table.rows:
        available = list(dict.fromkeys(name for raw in table.rows for name in raw.values))
    else:
        return {}
    return {column: available for column in columns if column not in available}


def _row_values(
    table: RawTable, raw: RawRow, columns: Sequence[str], optional: set[str]
) -> tuple[dict[str, str], list[Problem]]:
    values: dict[str, str] = {}
    problems: list[Problem] = []
    where = f"{table.unit} {raw.line}"
    for column in columns:
        if column not in raw.values:
            found = f"no column {column!r}{nearest(column, raw.values)}"
            problems.append(Problem(table.file, where, found, f"a row with the column {column!r}"))
            continue
        text = as_text(raw.values[column])
        if text is None:
            found = f"{column!r} is {_kind(raw.values[column])}"
            problems.append(Problem(table.file, where, found, "text, a number, true or false"))
        elif not text.strip() and column not in optional:
            problems.append(Problem(table.file, where, f"{column!r} is empty", "some text"))
        else:
            values[column] = text
    return values, problems


def as_text(value: object) -> str | None:
    """A row's value as text, None when it is of no accepted type."""
    if isinstance(value, str):
        # Half of a surrogate pair is legal in JSON's \\u notation, but no text: it has no UTF-8 form.
        return value if _is_unicode(value) else None
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return "text with half a surrogate pair (\\ud800 to \\udfff)"
    if isinstance(value, float):
        return f"the number {value}"
    return {"list": "a list", "dict": "an object"}.get(type(value).__name__, f"a {type(value).__name__}")


def read_table(source: str, base_dir: Path, split_name: str) -> RawTable:
    """A source with all its columns, unchecked. Raises DataError where it cannot be read at all."""
    from autotune.pipeline import data_files, data_sets

    path = base_dir / Path(source).expanduser()
    suffix = Path(source).suffix.lower()
    if suffix in data_files.READERS and not path.is_dir():
        if not path.is_file():
            raise DataError([Problem(source, "", f"no such file ({path})", ACCEPTED_SOURCES)])
        return data_files.READERS[suffix](path, source)
    return data_sets.read_data_set(source, base_dir, split_name)
