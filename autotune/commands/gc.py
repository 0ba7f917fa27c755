"""``autotune gc``: what the store holds, and freeing it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from autotune.errors import ConfigError, Problem


def gc(
    store: Annotated[Path | None, typer.Option(
        help="The folder to look at. Default: $AUTOTUNE_STORE, or a cache folder.")] = None,
    max_size: Annotated[str | None, typer.Option(
        help="Then free what was used least recently, down to this size: 500MB, 5GB, 1.5GiB.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Free nothing; say what would go.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")] = False,
) -> None:
    """Show what the store holds, and for which runs; free what no run needs."""
    from autotune.preparation import store_root
    from autotune.storage.garbage import SIZES, collect, parse_size
    from autotune.storage.store import Store

    try:
        size = None if max_size is None else parse_size(max_size)
    except ValueError as error:
        raise ConfigError([Problem("--max-size", "", str(error), SIZES)]) from None
    root = store_root(store, dict(os.environ))
    if store and not root.is_dir():
        raise ConfigError([Problem("--store", str(root), "no such folder", "the store of some autotune run")])
    try:
        found = collect(Store(root), size, dry_run)
    except OSError as error:
        raise ConfigError([Problem("--store", str(root), error.strerror or str(error), "a folder that can be written")
                           ]) from None
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        _print_held(found)


def _print_held(found: dict[str, Any]) -> None:
    from rich.table import Table

    from autotune.storage.garbage import show_size

    def count(number: int, noun: str) -> str:
        return f"{number} {noun[:-1] + 'ies' if noun[-1] == 'y' and number != 1 else noun + 's' * (number != 1)}"

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 300)  # paths whole in a pipe
    rows: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "stage": [*found["stages"].items()],
        "run": [(run["path"] + (" (gone)" if not run["exists"] else " (active)" if run["active"] else ""), run)
                for run in found["runs"]],
    }
    if found["leftovers"]["entries"]:
        rows["stage"].append(("damaged or of another format", found["leftovers"]))
    for title, lines in rows.items():
        table = Table(box=None, pad_edge=False)
        table.add_column(title, overflow="fold")
        table.add_column("entries", justify="right", no_wrap=True)
        table.add_column("size", justify="right", no_wrap=True)
        for name, held in lines:
            table.add_row(escape(name), str(held["entries"]), show_size(held["bytes"]))
        if lines:
            console.print(table)
            console.print()
    freed, held = found["freed"], found["held"]
    wording = "would free" if found["dry_run"] else "freed"
    console.print(f"{wording} {count(freed['entries'], 'entry')}, {show_size(freed['bytes'])}; "
                  f"{count(held['entries'], 'entry')}, {show_size(held['bytes'])} "
                  f"{'is' if held['entries'] == 1 else 'are'} held by {count(held['runs'], 'run')}")
    if found["max_size"] is not None and held["bytes"] > found["max_size"]:
        console.print(f"larger than {show_size(found['max_size'])}: the rest is in use by an active run")
