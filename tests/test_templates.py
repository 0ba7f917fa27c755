from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.templates import render, template_columns


def test_columns_in_order_each_once() -> None:
    assert template_columns("{b} and {a}, {b} {{not this}}") == ["b", "a"]
    assert template_columns("no field") == []


def test_render() -> None:
    assert render("### {text}\n{{x}} {the tone}:", {"text": "{a} }{", "the tone": "é"}) == "### {a} }{\n{x} é:"


@given(st.text())
def test_values_are_never_read_as_templates(value: str) -> None:
    assert render("<{a}>", {"a": value}) == f"<{value}>"


@given(st.text(), st.text())
def test_agrees_with_str_format_on_what_both_accept(literal: str, value: str) -> None:
    template = literal.replace("{", "{{").replace("}", "}}") + "{a}"
    assert render(template, {"a": value}) == template.format(a=value)


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("a {b", "single '{' at character 3"),
        ("a} b", "single '}' at character 2"),
        ("{}", "field '{}'"),
        ("{a.__class__}", "field '{a.__class__}' at character 1"),
        ("{a[0]}", "field"),
        ("{a!r}", "field"),
        ("{a:>10}", "field"),
        ("{a{b}}", "single '{'"),
    ],
)
def test_broken_templates_say_where_and_what_is_accepted(template: str, found: str) -> None:
    with pytest.raises(ValueError, match=r"accepted: \{column\} fields") as caught:
        template_columns(template)
    assert found in str(caught.value)
