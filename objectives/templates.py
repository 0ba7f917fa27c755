"""Prompt and answer templates: ``{column}`` fields, ``{{`` and ``}}`` for braces, and nothing else.

``str.format`` would also follow ``{column.attribute}`` and ``{column[key]}`` and apply format codes;
a template is data from a file, so none of that happens here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PIECE = re.compile(r"\{\{|\}\}|\{(?P<column>[^{}]*)\}|(?P<stray>[{}])|(?P<text>[^{}]+)")
_ACCEPTED = "accepted: {column} fields, and {{ or }} for a brace"


def template_columns(template: str) -> list[str]:
    """The columns a template reads, each once, in order.

    Raises:
        ValueError: a stray brace, an empty field, or a field with ``.``, ``[``, ``!`` or ``:``.
    """
    return list(dict.fromkeys(text for is_column, text in _pieces(template) if is_column))


def render(template: str, values: Mapping[str, str]) -> str:
    """Put the values in. Raises ValueError as ``template_columns`` does, KeyError for a missing column."""
    return "".join(values[text] if is_column else text for is_column, text in _pieces(template))


def _pieces(template: str) -> list[tuple[bool, str]]:
    """The template as (is a column, column name or literal text)."""
    pieces: list[tuple[bool, str]] = []
    for match in _PIECE.finditer(template):
        column, stray = match["column"], match["stray"]
        if stray is not None:
            raise ValueError(f"a single {stray!r} at character {match.start() + 1}; {_ACCEPTED}")
        if column is None:
            pieces.append((False, match["text"] or match[0][0]))
            continue
        if not column.strip() or re.search(r"[.\[\]!:]", column):
            raise ValueError(f"the field {match[0]!r} at character {match.start() + 1}; {_ACCEPTED}")
        pieces.append((True, column))
    return pieces
