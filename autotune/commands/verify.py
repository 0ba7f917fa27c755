"""``autotune verify``: a bundle checked on this machine, by the installed code and not by the bundle's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

EXIT_CODES = """Exit codes: 0 PASS; 1 FAIL, or the bundle is damaged; 2 bad usage; 4 INCONCLUSIVE. They are those of the
bundle's own verify.py."""


def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)],
    quick: Annotated[bool, typer.Option("--quick", help="Files and answers alone; nothing is timed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")] = False,
) -> None:
    """Check a bundle's files, answers and speed on this machine; no code of the bundle is run."""
    import objectives
    from autotune.errors import ConfigError, Problem
    from autotune.machine_lock import MachineLock

    if not bundle.is_dir():
        raise ConfigError([Problem("BUNDLE", str(bundle), "no such folder", "a folder made by autotune bundle")])
    console = Console(stderr=True, highlight=False)
    home = str(Path(objectives.__file__).parent.parent)
    options = [flag for flag, given in (("--quick", quick), ("--json", as_json)) if given]
    # A process of its own: what measures must not share one with all that is loaded here.
    command = [sys.executable, "-P", "-m", "objectives.verify", str(bundle.resolve()), *options]
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    with MachineLock(on_wait=console.print).measuring():
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False)
    raise typer.Exit(done.returncode if done.returncode >= 0 else 1)
