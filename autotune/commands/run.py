"""``autotune run``: search, or go on with a search."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from autotune.commands.completion import complete_run, complete_study
from autotune.errors import ConfigError, Problem

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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it takes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json (or the plan) to stdout.")] = False,
) -> None:
    """Search for the model that meets the study's limits; on an existing run folder, go on."""
    from autotune.config import load_config
    from autotune.preparation import store_root
    from autotune.study_file import DURATIONS, parse_duration

    config = load_config(study)
    try:
        time_s = parse_duration(timeout) if timeout else None
    except ValueError as error:
        raise ConfigError([Problem("--timeout", "", str(error), DURATIONS)]) from None
    from autotune.run import Options, plan_study, run_study

    root = store_root(store, dict(os.environ))
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([Problem("--store", str(root), error.strerror or str(error), "a folder that can be written")
                           ]) from None
    options = Options(out or Path("runs") / config.file.name, root, trials, time_s, quiet=as_json)
    if dry_run:
        found, points = plan_study(config, options)
        _print_plan(found, points, as_json)
        return
    finished = run_study(config, options)
    if as_json:
        print(json.dumps(finished.document, ensure_ascii=False))
    raise typer.Exit(finished.exit_code)


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
