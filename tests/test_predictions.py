"""Answers row by row: kept so that a spreadsheet opens them and ties can be computed from them."""

from __future__ import annotations

import csv
from pathlib import Path

from autotune import predictions


def test_rows_come_back_as_they_were_whatever_is_in_the_answers(tmp_path: Path) -> None:
    references = ["joy", 'a "quoted", text', "two\nlines", "=1+1"]
    answers = ["joy ", 'a "quoted", text', "two lines", "=1+1"]
    predictions.save(tmp_path / "new" / "trial-3.csv", references, answers)
    assert predictions.load_right(tmp_path / "new" / "trial-3.csv") == (True, True, False, True)
    with (tmp_path / "new" / "trial-3.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["answer"] for row in rows] == answers
    assert [row["row"] for row in rows] == ["0", "1", "2", "3"]
