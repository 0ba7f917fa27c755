"""The command line: thin. Arguments in, exit codes out."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from autotune import __version__
from autotune.errors import AutotuneError, ConfigError, InputError, Problem

app = typer.Typer(
    add_completion=True, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich",
    help="Fine-tune a small language model for a device, under your limits.",
)
EXIT_INTERRUPTED = 130
EXIT_CODES = """Exit codes: 0 a model is selected and its limits hold; 1 failed; 2 bad usage or study; 3 finished,
nothing meets the limits; 4 finished, not settled whether they hold; 130 interrupted, resumable."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"autotune {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]
    = False,
) -> None:
    pass


@app.command(epilog=EXIT_CODES)
def run(
    study: Annotated[Path, typer.Argument(help="The study.yaml.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Run folder; an existing one is resumed. Default: runs/NAME.")]
    = None,
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


@app.command()
def gc(
    store: Annotated[Path | None, typer.Option(
        help="The folder to look at. Default: $AUTOTUNE_STORE, or a cache folder.")] = None,
    max_size: Annotated[str | None, typer.Option(
        help="Then free what was used least recently, down to this size: 500MB, 5GB, 1.5GiB.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Free nothing; say what would go.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")] = False,
) -> None:
    """Show what the store holds, and for which runs; free what no run needs."""
    from autotune.garbage import SIZES, collect, parse_size
    from autotune.preparation import store_root
    from autotune.store import Store

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

    from autotune.garbage import show_size

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
        f"({found.seconds_per_adapter:.0f} s an adapter, {found.seconds_per_trial:.0f} s a trial)"
    )
    console.print(f"disk: about {found.disk / 1e9:.1f} GB    memory: about {found.memory / 1e9:.1f} GB")
    for misfit in found.misfits:
        console.print(f"[red]will not fit:[/] {escape(misfit)}")


def main() -> None:
    """Entry point: every error we foresee is a message, never a traceback."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    warnings.simplefilter("ignore")  # libraries' warnings are for us, not for who runs a study
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # nor those of the processes we start
    try:
        code = app(standalone_mode=False)
        if code == EXIT_INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except InputError as error:
        count = len(error.problems)
        errors.print(f"[red bold]{count} problem{'s' * (count != 1)}[/]")
        for problem in error.problems:
            errors.print(f"  {escape(str(problem))}")
        sys.exit(error.exit_code)
    except AutotuneError as error:
        errors.print(f"[red bold]failed:[/] {escape(str(error))}")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        errors.print("interrupted; the same command goes on from here")
        os._exit(EXIT_INTERRUPTED)  # a worker that was just killed leaves threads that would wait for it
    except Exception as error:  # noqa: BLE001 (the last line of defence before a user)
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "show"):
            error.show()
            sys.exit(2)
        _unforeseen(errors, error)


def _unforeseen(errors: Console, error: Exception) -> None:
    """A bug of ours: one line for the person, the traceback in a file for the report."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="autotune-", suffix=".log", delete=False) as file:
        traceback.print_exception(error, file=file)
    errors.print(f"[red bold]failed:[/] {type(error).__name__}: {escape(str(error))}\n"
                 f"This is a fault of autotune itself; please report it with {file.name}")
    sys.exit(1)
