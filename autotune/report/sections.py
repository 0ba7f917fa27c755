"""A report as titled sections of plain text and grids, and the same as a terminal's or as Markdown."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table


@dataclass(frozen=True)
class Grid:
    """Rows of texts under a header; a cell may have several lines. ``right``: columns of numbers; ``bold``: rows."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()
    bold: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Section:
    """``lines`` stand above the grid, ``notes`` below it."""

    title: str
    lines: tuple[str, ...] = ()
    grid: Grid | None = None
    notes: tuple[str, ...] = ()


def show(sections: Sequence[Section], warnings: Sequence[str] = ()) -> None:
    """Print to stdout; where it is no terminal, wide enough for most grids."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    for warning in warnings:
        console.print(f"[yellow bold]warning:[/] {escape(warning)}", soft_wrap=True)
    for index, section in enumerate(sections):
        if section.title:
            console.print(("\n" if index or warnings else "") + f"[bold]{escape(section.title)}[/]", soft_wrap=True)
        for line in section.lines:
            console.print(escape(line), soft_wrap=True)
        if section.grid and section.grid.rows:
            console.print(_table(section.grid))
        for line in section.notes:
            console.print(f"[dim]{escape(line)}[/]", soft_wrap=True)


def _table(grid: Grid) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column, name in enumerate(grid.header):
        table.add_column(escape(name), justify="right" if column in grid.right else "left", overflow="fold")
    for index, row in enumerate(grid.rows):
        table.add_row(*map(escape, row), style="bold" if index in grid.bold else "")
    return table


def markdown(title: str, sections: Sequence[Section], warnings: Sequence[str] = ()) -> str:
    """The same as GitHub's Markdown; every text stands for itself."""
    parts = [f"# {plain_markdown(title)}", *(f"> **Warning:** {plain_markdown(w)}" for w in warnings)]
    for section in sections:
        parts += [f"## {plain_markdown(section.title)}"] if section.title else []
        parts += [plain_markdown(line) for line in section.lines]
        parts += [_markdown_table(section.grid)] if section.grid and section.grid.rows else []
        parts += [f"<sub>{plain_markdown(line)}</sub>" for line in section.notes]
    return "\n\n".join(parts) + "\n"


def _markdown_table(grid: Grid) -> str:
    lines = [grid.header, tuple("--:" if i in grid.right else "---" for i in range(len(grid.header)))]
    rows = [f"| {' | '.join(map(plain_markdown, lines[0]))} |", f"| {' | '.join(lines[1])} |"]
    for index, row in enumerate(grid.rows):
        mark = "**" if index in grid.bold else ""
        cells = [f"{mark}{plain_markdown(cell)}{mark}" if cell else "" for cell in row]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def plain_markdown(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    safe = re.sub(r"([\\`*_\[\]#|~!])", r"\\\1", html.escape(text, quote=False))
    return "<br>".join(" ".join(line.split()) for line in safe.splitlines())
