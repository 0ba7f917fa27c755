"""``autotune report``: a run as one page that opens anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from autotune.commands.completion import complete_run


def report(
    run: Annotated[Path, typer.Argument(
        help="The run folder.", show_default=False, autocompletion=complete_run)],
    out: Annotated[Path | None, typer.Option(help="Where to write it. Default: report.html in the run folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")] = False,
) -> None:
    """Write a run's report: one HTML file that needs no network."""
    from autotune.finished import read_run
    from autotune.report.report_html import write_report
    from autotune.report.verdict import answer

    found = read_run(run)
    path = write_report(found, out)
    if as_json:
        told = answer(found)
        print(json.dumps({"report": str(path), "bytes": path.stat().st_size, "study": found.name, "trial": told.trial,
                          "verdict": told.verdict or None, "headline": told.headline}, ensure_ascii=False))
    else:
        print(path)
