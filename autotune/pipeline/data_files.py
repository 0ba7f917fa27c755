"""Readers of data files, each giving rows with their true line numbers and the problems of the others."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autotune.errors import DataError, Problem
from autotune.pipeline.data import RawRow, RawTable

_BOM = b"\xef\xbb\xbf"
_UTF8 = "UTF-8 text"


def read_jsonl(path: Path, name: str) -> RawTable:
    """One JSON object a line; blank lines are passed over, a byte order mark is tolerated."""
    rows: list[RawRow] = []
    problems: list[Problem] = []
    for line, (start, raw) in enumerate(_lines(path, name), start=1):
        text = _decode(raw, start, name, line, problems)
        if text is None or not text.strip():
            continue
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            found = f"not JSON ({error.msg} at character {error.pos + 1})"
            problems.append(Problem(name, f"line {line}", found, "one JSON object a line"))
            continue
        except (ValueError, RecursionError) as error:
            found = f"JSON that cannot be read ({error})"
            problems.append(Problem(name, f"line {line}", found, "one flat JSON object a line"))
            continue
        _take_object(value, line, name, rows, problems)
    return RawTable(name, "line", rows, problems)


def read_json(path: Path, name: str) -> RawTable:
    """An array of JSON objects; a row's line is the one its object begins on."""
    rows: list[RawRow] = []
    problems: list[Problem] = []
    text = _text(path, name, problems)
    if problems:
        return RawTable(name, "line", rows, problems)
    decoder = json.JSONDecoder()
    try:
        at = _skip_space(text, 0)
        if text[at : at + 1] != "[":
            raise json.JSONDecodeError("no '[' at the start", text, at)
        at = _skip_space(text, at + 1)
        line, counted = 1, 0
        while text[at : at + 1] != "]":
            line += text.count("\n", counted, at)
            counted = at
            value, at = decoder.raw_decode(text, at)
            _take_object(value, line, name, rows, problems)
            at = _skip_space(text, at)
            if text[at : at + 1] == ",":
                at = _skip_space(text, at + 1)
                if text[at : at + 1] == "]":
                    raise json.JSONDecodeError("a comma before ']'", text, at)
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("no ',' or ']' after a row", text, at)
        end = _skip_space(text, at + 1)
        if end != len(text):
            raise json.JSONDecodeError("something after the closing ']'", text, end)
    except json.JSONDecodeError as error:
        found = f"not JSON ({error.msg}, column {error.colno})"
        problems.append(Problem(name, f"line {error.lineno}", found, "an array of JSON objects"))
    except (ValueError, RecursionError) as error:
        found = f"JSON that cannot be read ({error})"
        problems.append(Problem(name, "", found, "an array of flat JSON objects"))
    return RawTable(name, "line", rows, problems)


def read_csv(path: Path, name: str) -> RawTable:
    """With a header, whose fields commas part, or semicolons or tabs where these make more of it. A row's
    line is the one it begins on, as quoted fields may hold line breaks.
    """
    rows: list[RawRow] = []
    problems: list[Problem] = []
    text = _text(path, name, problems)
    reader = _csv_reader(text, max(",;\t", key=lambda mark: _header_fields(text, mark)))
    header: list[str] | None = None
    line = 1
    while not problems or header is not None:
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            found = f"not CSV ({error})"
            problems.append(Problem(name, f"line {line}", found, "fields with balanced quotes"))
            break
        if header is None and fields:
            header = fields
            doubled = sorted({column for column in header if header.count(column) > 1})
            if doubled:
                found = f"column {doubled[0]!r} twice in the header"
                problems.append(Problem(name, f"line {line}", found, "a header of different names"))
        elif fields and len(fields) != len(header or ()):
            found = f"{len(fields)} fields"
            problems.append(Problem(name, f"line {line}", found, f"{len(header or ())}, as in the header"))
        elif fields:
            rows.append(RawRow(dict(zip(header or (), fields, strict=True)), line))
        line = reader.line_num + 1
    # A file that could not be decoded has no header to hold anything against.
    columns = tuple(header) if header is not None else None
    return RawTable(name, "line", rows, problems, columns)


def _csv_reader(text: str, delimiter: str) -> Any:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)


def _header_fields(text: str, delimiter: str) -> int:
    try:
        return len(next(filter(None, _csv_reader(text, delimiter)), []))
    except csv.Error:
        return 0


def read_parquet(path: Path, name: str) -> RawTable:
    """Through pandas with Arrow types, so that whole numbers beside a null stay whole numbers."""
    import pandas as pd

    try:
        frame = pd.read_parquet(path, dtype_backend="pyarrow")
    except Exception as error:  # pyarrow raises many classes for a damaged file
        found = f"cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        raise DataError([Problem(name, "", found, "a Parquet file")]) from error
    names = [str(column) for column in frame.columns]
    values = [[_plain(value) for value in frame[column].tolist()] for column in frame.columns]
    rows = [
        RawRow(dict(zip(names, row, strict=True)), number)
        for number, row in enumerate(zip(*values, strict=True), start=1)
    ]
    return RawTable(name, "row", rows, [], tuple(names))


READERS: dict[str, Callable[[Path, str], RawTable]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".parquet": read_parquet,
}


def _plain(value: Any) -> Any:
    """pandas' missing value as None."""
    return None if type(value).__name__ == "NAType" else value


def _take_object(value: object, line: int, name: str, rows: list[RawRow], problems: list[Problem]) -> None:
    if isinstance(value, dict):
        rows.append(RawRow(value, line))
    else:
        kinds = {list: "a list", str: "a text", type(None): "null", bool: "true or false"}
        found = kinds.get(type(value), "a number")
        problems.append(Problem(name, f"line {line}", found, "a JSON object"))


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        found = f"cannot be read ({error.strerror})"
        raise DataError([Problem(name, "", found, "a readable file")]) from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError([Problem(name, "", "UTF-16 text", _UTF8)])
    return content


def _lines(path: Path, name: str) -> list[tuple[int, bytes]]:
    """(offset of its first byte in the file, line) for every line, without the byte order mark."""
    content = _read_bytes(path, name)
    start = len(_BOM) if content.startswith(_BOM) else 0
    lines = []
    for raw in content[start:].split(b"\n"):
        lines.append((start, raw.removesuffix(b"\r")))
        start += len(raw) + 1
    return lines


def _decode(raw: bytes, start: int, name: str, line: int, problems: list[Problem]) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"not UTF-8 (byte 0x{raw[error.start]:02x} at offset {start + error.start} of the file)"
        problems.append(Problem(name, f"line {line}", found, _UTF8))
        return None


def _text(path: Path, name: str, problems: list[Problem]) -> str:
    """The whole file as text; a problem for each line that is not UTF-8, and then an empty text."""
    for line, (start, raw) in enumerate(_lines(path, name), start=1):
        _decode(raw, start, name, line, problems)
    return "" if problems else _read_bytes(path, name).removeprefix(_BOM).decode("utf-8")


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at
