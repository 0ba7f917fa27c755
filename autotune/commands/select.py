"""``autotune select``: other limits on a finished run, with nothing measured again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotune.commands.completion import complete_policy, complete_run
from autotune.errors import ConfigError, Problem, nearest

if TYPE_CHECKING:
    from autotune.choosing.selection import Selection
    from autotune.constraints import Constraint
    from autotune.finished import FinishedRun
    from autotune.pareto import Policy

EXIT_NOTHING_FITS = 3
EXIT_CODES = "Exit codes: 0 a trial is chosen; 2 bad usage or input; 3 nothing meets the limits."


def select(
    run: Annotated[Path, typer.Argument(
        help="The run folder.", show_default=False, autocompletion=complete_run)],
    require: Annotated[list[str] | None, typer.Option(
        metavar="EXPR", help="A limit, such as 'latency_ms.p95 <= 300'; may be given again. Takes the place of the "
        "study's own limits.", show_default=False)] = None,
    keep_limits: Annotated[bool, typer.Option(
        "--keep-limits", help="The study's limits hold too, but for those on the same objective and side as one of "
        "--require.")] = False,
    policy: Annotated[str | None, typer.Option(
        help="fastest, smallest, most-accurate or knee. Default: the study's.", show_default=False,
        autocompletion=complete_policy)] = None,
    study: Annotated[Path | None, typer.Option(
        metavar="FILE", help="Write a study of the chosen trial alone, which makes its artifact again and certifies "
        "it. Put it beside the study that the run is of.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")] = False,
) -> None:
    """Choose from a finished run under other limits or another policy; nothing is measured again."""
    from autotune import predictions
    from autotune.choosing.selection import choose
    from autotune.finished import read_run
    from autotune.report.selection import as_json as document

    found = read_run(run)
    limits, chosen_by = _asked(found, require or [], keep_limits, policy)
    right = predictions.kept(found.root / "predictions", (t.number for t in found.complete))
    selection = choose(found, limits, chosen_by, right)
    written = _write_study(found, selection, study) if study else None
    if as_json:
        print(json.dumps({**document(found, selection), "written_study": written}, ensure_ascii=False))
    else:
        _show(found, selection, bool(require), written)
    raise typer.Exit(0 if selection.choice else EXIT_NOTHING_FITS)


def _asked(
    run: FinishedRun, require: list[str], keep: bool, policy: str | None
) -> tuple[tuple[Constraint, ...], Policy]:
    """Limits and policy; every problem with both is raised at once."""
    from autotune.choosing.other_limits import limits_for

    problems = []
    if keep and not require:
        problems.append(Problem("--keep-limits", "", "no --require beside it", "at least one: without, the study's own "
                                "limits hold anyway"))
    try:
        chosen_by = _policy(run, policy)
    except ConfigError as error:
        problems += error.problems
    try:
        limits = limits_for(run, require, keep)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    return limits, chosen_by


def _policy(run: FinishedRun, given: str | None) -> Policy:
    """Raises ConfigError for a policy that is none, or has no objective of this run to go by."""
    from autotune.pareto import POLICIES, goes_by

    if given is None:
        kept: Policy = run.study.get("policy", "most-accurate")
        return kept
    fitting = [p for p in POLICIES if any(goes_by(p, key) for key, _ in run.objectives)]
    for policy in POLICIES:
        if policy == given and policy in fitting:
            return policy
    keys = ", ".join(key for key, _ in run.objectives)
    found = (f"{given} has none of this run's objectives to go by ({keys})" if given in POLICIES
             else f"{given!r}{nearest(given, POLICIES)}")
    raise ConfigError([Problem("--policy", "", found, ", ".join(fitting))])


def _write_study(run: FinishedRun, selection: Selection, path: Path) -> str | None:
    """The study of the chosen trial alone; None where none is chosen.

    Raises:
        ConfigError: the file is there already, or cannot be written.
    """
    from autotune.choosing.narrowed_study import narrowed
    from autotune.storage.store import write_atomically

    if selection.choice is None:
        return None
    if path.exists():
        raise ConfigError([Problem("--study", str(path), "there already", "the name of a new file")])
    try:
        write_atomically(path, narrowed(run, selection.choice.trial, selection.constraints, selection.policy))
    except OSError as error:
        raise ConfigError([Problem("--study", str(path), error.strerror or str(error), "a file that can be written")
                           ]) from None
    return str(path.resolve())


def _show(run: FinishedRun, selection: Selection, replaced: bool, written: str | None) -> None:
    from autotune.report.sections import show
    from autotune.report.selection_sections import sections

    show(sections(run, selection, replaced, written))
