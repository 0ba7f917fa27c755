"""Sections as a terminal and Markdown show them: every text stands for itself."""

from __future__ import annotations

import pytest

from autotune.report.sections import Grid, Section, markdown, plain_markdown, show

HOSTILE = "[red]a|b[/] <img src=x> *c* `d`"
SECTION = Section(HOSTILE, (HOSTILE,), Grid(("name", "value"), ((HOSTILE, "1\n2"), ("other", "")), frozenset({1}),
                                            frozenset({1})), (HOSTILE,))


def test_markup_in_a_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show([SECTION], [HOSTILE])
    printed = capsys.readouterr().out
    assert printed.count(HOSTILE) == 5
    assert printed.startswith("warning: ")


def test_markdown_has_tables_that_no_text_can_break() -> None:
    text = markdown("t", [SECTION], ["w"])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[1] == "| --- | --: |"
    assert rows[2].replace("\\|", "").count("|") == 3
    assert rows[2].endswith("1<br>2 |")
    assert rows[3] == "| **other** |  |"
    assert "<img" not in text
    assert "> **Warning:** w" in text


def test_a_text_of_several_lines_stays_one_line_of_markdown() -> None:
    assert plain_markdown("# a\n- b_c") == "\\# a<br>- b\\_c"
