"""``autotune run``: search, or go on with a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from autotune.commands.completion import complete_run, complete_study
from autotune.errors import ConfigError, Problem, TrackingError

if TYPE_CHECKING:
    from autotune.options import Options

EXIT_CODES = """Exit codes: 0 a model is selected and its limits hold; 1 failed; 2 bad usage or study; 3 finished,
nothing meets the limits; 4 finished, not settled whether they hold; 130 interrupted, resumable."""


def run(
    study: Annotated[Path, typer.Argument(
        help="The study.yaml.", show_default=False, autocompletion=complete_study)],
    out: Annotated[Path | None, typer.Option(
        help="Run folder; an existing one is resumed. Default: runs/NAME.", autocompletion=complete_run)] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Stop after this many trials.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Stop after this long: 90s, 30m, 1h30m.")] = None,
    store: Annotated[Path | None, typer.Option(
        help="Where made stages are kept and shared. Default: $AUTOTUNE_STORE, or a cache folder.")] = None,
    warm_start: Annotated[Path | None, typer.Option(
        metavar="RUN", help="Begin with the best adapters of an earlier run of the same base model.",
        autocompletion=complete_run)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it takes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json (or the plan) to stdout.")] = False,
    mlflow: Annotated[str | None, typer.Option(
        metavar="URI", help="Log the study to MLflow in the end: sqlite:///FILE, a folder, http://SERVER.")] = None,
    mlflow_artifacts: Annotated[bool, typer.Option(
        "--mlflow-artifacts", help="With --mlflow: upload the selected model too.")] = False,
) -> None:
    """Search for the model that meets the study's limits; on an existing run folder, go on."""
    from autotune import tracking
    from autotune.config import load_config
    from autotune.options import resolve_options

    if mlflow_artifacts and not mlflow:
        raise ConfigError([Problem("--mlflow-artifacts", "", "given without --mlflow", "--mlflow URI beside it")])
    config = load_config(study)
    options = resolve_options(config, out, store, trials, timeout, quiet=as_json, warm_start=warm_start)
    if mlflow:
        tracking.require_usable(mlflow)
    from autotune.planned_work import plan_study
    from autotune.run_study import run_study

    if dry_run:
        found, points = plan_study(config, options)
        _print_plan(found, points, as_json)
        return
    finished = run_study(config, options)
    if mlflow:
        _log(options, mlflow, mlflow_artifacts)
    if as_json:
        print(json.dumps(finished.document, ensure_ascii=False))
    raise typer.Exit(finished.exit_code)


def _log(options: Options, uri: str, artifact: bool) -> None:
    """Log the study; where that fails it is said, as the study itself is whole."""
    from autotune.finished import read_run
    from autotune.report.terminal import Terminal
    from autotune.tracking import log_run

    terminal = Terminal(options.quiet, options.silent)
    try:
        terminal.say(log_run(read_run(options.out), uri, artifact=artifact).sentence())
    except TrackingError as error:
        terminal.warn(f"{error} The study is whole in {options.out}; the same command logs it later.")


def _print_plan(found: Any, points: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        print(json.dumps({"deploy_points": points, **asdict(found)}))
        return
    console = Console(highlight=False)
    console.print(f"[bold]{sum(p['reason'] is None for p in points)} deploy points[/]")
    for point in points:
        size = f"about {point['size_mb']} MB" if point["reason"] is None else f"left out: {point['reason']}"
        console.print(f"  {escape(point['label']):<24} {escape(size)}")
    console.print(
        f"[bold]{found.adapters} adapters, {found.trials} trials[/]: about {found.seconds / 60:.0f} minutes "
        f"({found.seconds_per_adapter:.0f} s an adapter, {found.seconds_per_trial:.0f} s a trial"
        + (f", {found.seconds_per_finalist:.0f} s certifying a finalist)" if found.seconds_per_finalist else ")")
    )
    console.print(f"disk: about {found.disk / 1e9:.1f} GB    memory: about {found.memory / 1e9:.1f} GB")
    for misfit in found.misfits:
        console.print(f"[red]will not fit:[/] {escape(misfit)}")
