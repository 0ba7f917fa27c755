"""Rows are read with their true line numbers, and every kind of bad row is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from autotune.errors import DataError, Problem
from autotune.pipeline.data import Row, read_rows


def read(folder: Path, name: str, content: str | bytes, columns: tuple[str, ...] = ("text", "tone")) -> list[Row]:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    return read_rows(name, folder, "train", columns)


def problems(folder: Path, name: str, content: str | bytes) -> list[Problem]:
    with pytest.raises(DataError) as caught:
        read(folder, name, content)
    return list(caught.value.problems)


def where_found(folder: Path, name: str, content: str | bytes) -> list[tuple[str, str]]:
    return [(p.where, p.found) for p in problems(folder, name, content)]


def test_jsonl_lines_blank_lines_bom_and_crlf(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"text": "a", "tone": "joy", "more": null}\r\n\r\n  \n{"tone": "fear", "text": "\xc3\xa9"}'
    rows = read(tmp_path, "a.jsonl", content)
    assert rows == [
        Row({"text": "a", "tone": "joy"}, "a.jsonl", 1),
        Row({"text": "é", "tone": "fear"}, "a.jsonl", 4),
    ]
    assert rows[1].where == "line 4"


def test_numbers_and_booleans_become_text_as_json_writes_them(tmp_path: Path) -> None:
    lines = "".join(f'{{"text": {v}, "tone": "x"}}\n' for v in ("3", "-0.5", "true", "1e3", '"03"'))
    assert [row.values["text"] for row in read(tmp_path, "a.jsonl", lines)] == ["3", "-0.5", "true", "1000.0", "03"]


def test_every_kind_of_bad_jsonl_row_at_once(tmp_path: Path) -> None:
    lines = [
        b'{"text": "fine", "tone": "joy"}',
        b'{"text": "caf\xe9", "tone": "joy"}',
        b'{"text": "a", "tone": }',
        b'["a", "joy"]',
        b'{"text": "a", "tones": "joy"}',
        b'{"text": ["a"], "tone": {"b": 1}}',
        b'{"text": null, "tone": NaN}',
        b'{"text": " \\n ", "tone": "joy"}',
        b'{"text": "half \\ud83d", "tone": "joy"}',
        b'{"text": "fine", "tone": "joy"}',
        b"[" * 100_000,
        b'{"text": ' + b"9" * 5000 + b', "tone": "joy"}',
        b"null",
    ]
    found = where_found(tmp_path, "a.jsonl", b"\n".join(lines))
    offset = len(lines[0]) + 1 + len(b'{"text": "caf')
    assert found[:11] == [
        ("line 2", f"not UTF-8 (byte 0xe9 at offset {offset} of the file)"),
        ("line 3", "not JSON (Expecting value at character 23)"),
        ("line 4", "a list"),
        ("line 5", "no column 'tone', did you mean 'tones'?"),
        ("line 6", "'text' is a list"),
        ("line 6", "'tone' is an object"),
        ("line 7", "'text' is null"),
        ("line 7", "'tone' is the number nan"),
        ("line 8", "'text' is empty"),
        ("line 9", "'text' is text with half a surrogate pair (\\ud800 to \\udfff)"),
        ("line 11", found[10][1]),
    ]
    assert [where for where, _ in found[11:]] == ["line 12", "line 13"]
    assert all("\n" not in text and len(text) < 300 for _, text in found)


def test_each_problem_says_what_is_accepted(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "a.jsonl", '{"text": 1, "tone": null}\n{"text": "b", "tone": "joy"}')
    assert str(problem) == "a.jsonl: line 1: 'tone' is null; accepted: text, a number, true or false"


def test_a_column_that_no_row_has_is_one_problem(tmp_path: Path) -> None:
    found = problems(tmp_path, "a.jsonl", '{"phrase": "a", "tone": "b"}\n' * 50)
    assert [str(p) for p in found] == ["a.jsonl: no column 'text', did you mean 'tone'?; accepted: one of phrase, tone"]
    found = problems(tmp_path, "a.csv", "text,tome\na,b\nc,d\n")
    assert [p.found for p in found] == ["no column 'tone', did you mean 'tome'?"]


def test_many_bad_rows_are_counted_after_twenty(tmp_path: Path) -> None:
    found = where_found(tmp_path, "a.jsonl", "x\n" * 50)
    assert len(found) == 21
    assert found[19][0] == "line 20"
    assert found[20] == ("", "and 30 more")


def test_optional_columns_may_be_blank(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "more": " "}\n')
    assert read_rows("a.jsonl", tmp_path, "train", ["text", "more"], ["more"])[0].values["more"] == " "


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_empty_files_and_utf16(tmp_path: Path, name: str) -> None:
    assert problems(tmp_path, name, "[]" if name == "a.json" else "")[0].found == "no rows"
    assert problems(tmp_path, name, "text,tone".encode("utf-16"))[0].found == "UTF-16 text"


def test_json_array_lines(tmp_path: Path) -> None:
    content = '\ufeff[\n {"text": "a",\n  "tone": "joy"},\n\n {"text": "b", "tone": 2}, {"text": "c", "tone": 1}\n]\n'
    assert [(r.line, r.values["text"]) for r in read(tmp_path, "a.json", content)] == [(2, "a"), (5, "b"), (5, "c")]


@pytest.mark.parametrize(
    ("content", "where", "found"),
    [
        ('{"text": "a"}', "line 1", "no '[' at the start"),
        ('[\n{"text": "a", "tone": "b"}\n{"text": "a", "tone": "b"}]', "line 3", "no ',' or ']'"),
        ('[{"text": "a", "tone": "b"},\n]', "line 2", "a comma before ']'"),
        ('[{"text": "a", "tone": "b"}] x', "line 1", "something after the closing ']'"),
        ('[{"text": "a", "tone": "b"}', "line 1", "no ',' or ']'"),
        ('[{"text": "a", "tone": "b"},\n\n{"text" "a"}]', "line 3", "not JSON"),
        ('[{"text": "a", "tone": "b"},\n4]', "line 2", "a number"),
    ],
)
def test_broken_json_says_the_line(tmp_path: Path, content: str, where: str, found: str) -> None:
    (problem,) = problems(tmp_path, "a.json", content)
    assert problem.where == where
    assert found in problem.found


def test_csv_lines_are_true_lines(tmp_path: Path) -> None:
    content = '\ufefftext,tone\r\n"two\nlines, one ""row""",joy\r\n\r\nNA,fear\r\n'
    assert read(tmp_path, "a.csv", content) == [
        Row({"text": 'two\nlines, one "row"', "tone": "joy"}, "a.csv", 2),
        Row({"text": "NA", "tone": "fear"}, "a.csv", 5),
    ]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_csv_parted_by_semicolons_or_tabs(tmp_path: Path, mark: str) -> None:
    content = f'text{mark}tone\n"one{mark} two, three"{mark}joy\na, b{mark}fear\n'
    assert [row.values for row in read(tmp_path, "a.csv", content)] == [
        {"text": f"one{mark} two, three", "tone": "joy"}, {"text": "a, b", "tone": "fear"}]


def test_a_semicolon_in_a_quoted_header_parts_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"text; as said",tone\nhello; you,joy\n')
    (row,) = read_rows("a.csv", tmp_path, "train", ["text; as said", "tone"])
    assert row.values == {"text; as said": "hello; you", "tone": "joy"}


def test_bad_csv(tmp_path: Path) -> None:
    content = 'text,tone\n"two\nlines",joy\na,b,c\n,joy\nonly\n'
    assert where_found(tmp_path, "a.csv", content) == [
        ("line 4", "3 fields"), ("line 5", "'text' is empty"), ("line 6", "1 fields"),
    ]  # fmt: skip
    assert where_found(tmp_path, "a.csv", 'text,tone\na,joy\n"open,joy\nb,joy\n')[0][0] == "line 3"
    assert where_found(tmp_path, "a.csv", "text,tone,text\na,b,c\n") == [
        ("line 1", "column 'text' twice in the header")
    ]
    assert where_found(tmp_path, "a.csv", b"text,tone\na,joy\n\xff,joy\nb,\xfe\n") == [
        ("line 3", "not UTF-8 (byte 0xff at offset 16 of the file)"),
        ("line 4", "not UTF-8 (byte 0xfe at offset 24 of the file)"),
    ]


def test_parquet_rows(tmp_path: Path) -> None:
    tones = pd.array([1, 2, None], dtype="Int64")
    frame = pd.DataFrame({"text": ["a", None, "c"], "tone": tones, "x": [[1], [2], [3]]})
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError) as caught:
        read_rows("a.parquet", tmp_path, "train", ["text", "tone", "x"])
    assert [(p.where, p.found) for p in caught.value.problems] == [
        ("row 1", "'x' is a list"),
        ("row 2", "'text' is null"),
        ("row 2", "'x' is a list"),
        ("row 3", "'tone' is null"),
        ("row 3", "'x' is a list"),
    ]
    frame.iloc[:1].to_parquet(tmp_path / "b.parquet")
    assert read_rows("b.parquet", tmp_path, "train", ["text", "tone"])[0] == Row(
        {"text": "a", "tone": "1"}, "b.parquet", 1, "row"
    )


def test_damaged_parquet(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "a.parquet", b"PAR1 not really")
    assert problem.accepted == "a Parquet file"


@pytest.mark.parametrize("source", ["missing.jsonl", "data.txt", "../x/../y", "a b/c", ""])
def test_sources_that_are_nothing(tmp_path: Path, source: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(source, tmp_path, "train", ["text"])
    assert "a .jsonl, .json, .csv or .parquet file" in caught.value.problems[0].accepted


def test_absolute_paths(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "a"}]
    file = tmp_path / "deep" / "a.json"
    file.parent.mkdir()
    file.write_text(json.dumps(rows))
    assert read_rows(str(file), Path("/nowhere"), "train", ["text"])[0].file == str(file)
