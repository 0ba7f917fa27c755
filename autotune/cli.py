"""The command line: thin. Arguments in, exit codes out."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from autotune import __version__
from autotune.commands import bundle, compare, device, doctor, gc, init, report, run, select, verify
from autotune.errors import AutotuneError, InputError

app = typer.Typer(
    add_completion=True, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich",
    help="Fine-tune a small language model for a device, under your limits.",
)
EXIT_INTERRUPTED = 130


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


app.command(epilog=run.EXIT_CODES)(run.run)
app.command(epilog=init.EXIT_CODES)(init.init)
app.command(epilog=doctor.EXIT_CODES)(doctor.doctor)
app.command()(report.report)
app.command()(gc.gc)
app.command()(compare.compare)
app.command(epilog=select.EXIT_CODES)(select.select)
app.command(epilog=bundle.EXIT_CODES)(bundle.bundle)
app.add_typer(device.app, name="device")
app.command(epilog=verify.EXIT_CODES)(verify.verify)


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
