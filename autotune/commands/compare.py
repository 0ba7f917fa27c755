"""``autotune compare``: finished runs beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotune.commands.completion import complete_run
from autotune.errors import ConfigError, InputError, Problem

if TYPE_CHECKING:
    from autotune.finished import FinishedRun


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="Two run folders, or more.",
                                               show_default=False, autocompletion=complete_run)],
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as Markdown.", show_default=False)]
    = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as one HTML page, with plots.",
                                              show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")] = False,
    any_target: Annotated[bool, typer.Option(
        "--any-target", help="Compare times and memory of different machines or targets too, with a warning.")] = False,
) -> None:
    """Compare finished runs: what differs, whose front covers more, which is best where, and what it took."""
    from autotune import predictions
    from autotune.comparing.comparison import compare as compared
    from autotune.report import comparison, sections
    from autotune.report.comparison_sections import sections as told
    from autotune.report.comparison_sections import title

    found = _read(runs)
    right = [predictions.kept(run.root / "predictions", (t.number for t in run.complete)) for run in found]
    made = compared(found, right, any_target)
    parts = told(made)
    if markdown:
        _write("--markdown", markdown, sections.markdown(title(made), parts, made.warnings))
    if html:
        from autotune.report.comparison_html import page

        _write("--html", html, page(made, parts))
    if as_json:
        print(json.dumps(comparison.as_json(made), ensure_ascii=False))
    else:
        sections.show(parts, made.warnings)


def _read(folders: list[Path]) -> list[FinishedRun]:
    """Every run; what is wrong with any of them is raised at once."""
    from autotune.finished import read_run

    found: list[FinishedRun] = []
    problems: list[Problem] = []
    for folder in folders:
        try:
            run = read_run(folder)
            _ = run.study  # read now, so that a damaged one is told with the rest
            found.append(run)
        except InputError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return found


def _write(option: str, path: Path, text: str) -> None:
    from autotune.storage.store import write_atomically

    try:
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError([Problem(option, str(path), error.strerror or str(error), "a file that can be written")
                           ]) from None
