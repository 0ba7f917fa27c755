"""``autotune bundle``: the folder that a user copies to the device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from autotune.commands.completion import complete_run
from autotune.errors import ConfigError, Problem

EXIT_CODES = "Exit codes: 0 the bundle is there; 1 failed; 2 bad usage or input; 3 the run selected nothing."


def bundle(
    run: Annotated[Path, typer.Argument(
        help="The run folder.", show_default=False, autocompletion=complete_run)],
    out: Annotated[Path, typer.Option(help="The folder to make; a bundle that is there is replaced.")],
    trial: Annotated[int | None, typer.Option(min=0, help="Another trial than the selected one.")] = None,
    samples: Annotated[int, typer.Option(
        min=0, help="Rows of the data that travel with it, for verify.py. 0 for private data.")] = 64,
    with_adapter: Annotated[bool, typer.Option("--with-adapter", help="Add the adapter in PEFT's format.")] = False,
    store: Annotated[Path | None, typer.Option(
        help="The store of the run. Default: $AUTOTUNE_STORE, or a cache folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")] = False,
) -> None:
    """Put the selected artifact into a folder that runs, and checks itself, on the device."""
    from autotune.bundle.make import make
    from autotune.finished import read_run
    from autotune.options import store_of_run

    found = read_run(run)
    if store and not store.expanduser().is_dir():
        raise ConfigError([Problem("--store", str(store), "no such folder", "the store of the run")])
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    opened = store_of_run(found.study, store, lambda text: errors.print(escape(text)))
    made = make(found, opened, out, trial=trial, samples=samples, with_adapter=with_adapter)
    manifest = made.manifest
    if as_json:
        print(json.dumps({
            "bundle": str(made.folder), "digest": manifest["digest"], "trial": manifest["trial"],
            "certified": manifest["certified"], "files": len(manifest["files"]), "bytes": made.bytes,
            "samples": manifest["samples"]["count"], "notes": list(made.notes),
        }, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Bundled trial {manifest['trial']} ({escape(manifest['deploy_point'])}): {made.bytes / 1e6:.0f} MB, "
                  f"{len(manifest['files'])} files, {manifest['samples']['count']} sample rows")
    for note in made.notes:
        console.print(f"[yellow]note:[/] {escape(note)}")
    console.print(f"Bundle: {escape(str(made.folder))}\nDigest: {manifest['digest']}\n"
                  "Copy it to the device, and there: python -m pip install -r requirements.txt; python verify.py")
