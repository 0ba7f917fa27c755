"""``autotune device``: devices over SSH: which there are, what they have, what they lack, how fast they are."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from autotune.commands.completion import complete_device

if TYPE_CHECKING:
    from autotune.report.terminal import Terminal
    from autotune.stats import Measurement
    from autotune.targets.address import Place
    from autotune.targets.checks import Check
    from objectives.result import ProbeResult

EXIT_CODES = "Exit codes: 0 done; 1 the device is not reached, or nothing can be measured there; 2 bad usage."
_STYLES: Mapping[str, str] = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red bold"}
_SHOWN = ("ttft_ms.p50", "tpot_ms.p50", "latency_ms.p50", "latency_ms.p95", "tokens_per_s.p50", "load_ms",
          "peak_rss_mb")

Host = Annotated[str, typer.Argument(
    help="ssh://USER@HOST:PORT, or a name from the devices file.", show_default=False, autocompletion=complete_device)]
Python = Annotated[str | None, typer.Option(
    help="The device's interpreter. Default: that of the devices file, else of the environment that setup makes.")]
Provider = Annotated[str, typer.Option(help="The execution provider: cpu, cuda or dml.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]

app = typer.Typer(no_args_is_help=True, help="Measure on devices over SSH: list, show, setup, bench.")


@app.command("list", epilog="Exit codes: 0 done; 2 a devices file that cannot be read.")
def list_(as_json: Json = False) -> None:
    """The devices of the devices file; nothing is connected to."""
    from rich.table import Table

    from autotune.targets.devices import EXAMPLE, devices_path, read_devices

    path = devices_path(os.environ)
    places = read_devices(path)
    if as_json:
        print(json.dumps({"file": str(path), "devices": [_place_json(place) for place in places.values()]}))
        return
    console = _console()
    if not places:
        console.print(f"No device has a name yet. One is a line of {escape(str(path))}:\n  {escape(EXAMPLE)}")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "address", "python", "folder", "quota"):
        table.add_column(column)
    for place in places.values():
        table.add_row(*(escape(str(told or "from setup")) for told in _place_json(place).values()))
    console.print(table)


@app.command(epilog=EXIT_CODES)
def show(host: Host, python: Python = None, provider: Provider = "cpu", as_json: Json = False) -> None:
    """What a device is, and whether a study can measure on it."""
    place = _place(host, python, provider)
    from autotune.targets.agent import agent_on
    from autotune.targets.checks import checks
    from autotune.targets.ssh import once

    async def look() -> tuple[dict[str, Any], dict[str, Any]]:
        async with agent_on(place) as agent:
            return await agent.ask("facts"), await agent.ask("providers")

    told, providers = once(place, look)
    found, kept = checks(place.name, told["facts"], provider, providers), told["kept"]
    if as_json:
        print(json.dumps({"host": place.name, "ok": _usable(found), "checks": [asdict(c) for c in found],
                          "facts": told["facts"], "kept": kept}, ensure_ascii=False))
    else:
        console = _console()
        _print_checks(console, found)
        console.print(f"Kept there: {len(kept['artifacts'])} artifacts, {kept['bytes'] / 1e6:.0f} of at most "
                      f"{place.quota / 1e6:.0f} MB")
        _conclude(console, place, found)
    raise typer.Exit(0 if _usable(found) else 1)


@app.command(epilog=EXIT_CODES)
def setup(
    host: Host,
    python: Annotated[str, typer.Option(help="The device's interpreter to make the environment with.")] = "python3",
    provider: Provider = "cpu", as_json: Json = False,
) -> None:
    """Make an environment on the device with numpy, psutil, onnxruntime and onnxruntime-genai."""
    place = _place(host, None, provider)
    from autotune.targets.setting_up import set_up

    console = _console(stderr=as_json)
    found = set_up(place, python, provider, lambda line: console.print(f"  [dim]{escape(line)}[/]"))
    if as_json:
        print(json.dumps({"host": place.name, "ok": _usable(found), "checks": [asdict(c) for c in found]}))
    else:
        _print_checks(console, found)
        _conclude(console, place, found)
    raise typer.Exit(0 if _usable(found) else 1)


@app.command(epilog=EXIT_CODES)
def bench(
    host: Host,
    artifact: Annotated[Path | None, typer.Option(
        help="The model folder to time. Default: a tiny random one, made for it.", show_default=False)] = None,
    threads: Annotated[int, typer.Option(min=1, help="The cores that the model will have.")] = 1,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 64,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 16,
    samples: Annotated[int, typer.Option(min=5, help="Undisturbed requests to time.")] = 20,
    python: Python = None, provider: Provider = "cpu", as_json: Json = False,
) -> None:
    """Time an artifact on a device, as a study would."""
    place = _place(host, python, provider)
    from autotune.answers import system_measurements, timed
    from autotune.report.terminal import Terminal
    from autotune.targets import bench as benching

    terminal = Terminal(quiet=as_json)
    measured = _measured(place, artifact, threads, provider, terminal,
                         lambda folder, target: benching.request(folder, target, prompt_tokens, new_tokens, samples))
    values = {key: value for key, value in system_measurements(measured, (), 0.95).items() if key in _SHOWN}
    told = timed(measured, (), 0.95, "")
    steady = told.steadiness.sentence() if told else ""
    if as_json:
        print(json.dumps({"host": place.name, "values": {key: asdict(value) for key, value in values.items()},
                          "steadiness": steady, "facts": measured.facts}, ensure_ascii=False))
    else:
        _print_values(terminal.console, values, steady, measured.facts)
    raise typer.Exit(0)


def _measured(place: Place, artifact: Path | None, threads: int, provider: str, terminal: Terminal,
              request: Any) -> ProbeResult:
    import tempfile

    from autotune.questions import Target
    from autotune.targets.bench import tiny_artifact
    from autotune.targets.ssh import open_ssh
    from autotune.workers import Worker

    target = Target(provider, {}, threads)
    with tempfile.TemporaryDirectory(prefix="autotune-bench-") as scratch:
        asked = request(artifact.resolve(), target) if artifact else None
        device = open_ssh(place, provider, terminal.warn)
        if asked is None:
            worker = Worker(Path(scratch, "worker.log"))
            try:
                with terminal.stage("making a tiny artifact"):
                    asked = request(tiny_artifact(worker, Path(scratch)), target)
            finally:
                worker.close()
        with terminal.stage(f"measuring on {place.name}") as report:
            return device.measure(asked, workdir=Path(scratch), report=report)


def _place(host: str, python: str | None, provider: str) -> Place:
    from autotune.errors import ConfigError, Problem, nearest
    from autotune.targets.checks import RUNTIMES
    from autotune.targets.devices import find_place

    if provider not in RUNTIMES:
        raise ConfigError([Problem("--provider", "", f"{provider}{nearest(provider, RUNTIMES)}", ", ".join(RUNTIMES))])
    return find_place(host, python, file="HOST", where="")


def _place_json(place: Place) -> dict[str, Any]:
    return {"name": place.name, "address": str(place.address), "python": place.python, "folder": place.folder,
            "quota": f"{place.quota / 1e6:.0f} MB"}


def _console(stderr: bool = False) -> Console:
    return Console(highlight=False, stderr=stderr, width=None if sys.stdout.isatty() else 300)


def _usable(found: Sequence[Check]) -> bool:
    return not any(check.state == "problem" for check in found)


def _print_checks(console: Console, found: Sequence[Check]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for check in found:
        word = "accepted" if check.state == "problem" else "better"
        better = f" [dim]{word}: {escape(check.accepted)}[/]" if check.accepted else ""
        table.add_row(f"  [{_STYLES[check.state]}]{check.state}[/]", escape(check.name),
                      f"{escape(check.found)}{better}")
    console.print(table)


def _conclude(console: Console, place: Place, found: Sequence[Check]) -> None:
    if _usable(found):
        console.print(f"[bold]A study can measure there.[/] In study.yaml: target: {{host: {escape(place.name)}, …}}")
    else:
        names = ", ".join(check.name for check in found if check.state == "problem")
        console.print(f"[bold]Nothing can be measured there yet:[/] {escape(names)}")


def _print_values(
    console: Console, values: Mapping[str, Measurement], steady: str, facts: Mapping[str, Any]
) -> None:
    from autotune.report.wording import show

    for key, value in values.items():
        console.print(f"  {key:<18}{escape(show(value, True))} {value.unit} (n = {value.n})")
    before, after = facts["temperature_c"]
    heat = f"; {before:.0f} °C before, {after:.0f} °C after" if before is not None and after is not None else ""
    machine, versions = facts["machine"], facts["versions"]
    console.print(f"  on {escape(str(machine['board'] or machine['cpu']))}, ONNX Runtime {versions['onnxruntime']}, "
                  f"GenAI {versions['onnxruntime_genai']}{heat}")
    if steady:
        console.print(f"  {escape(steady)}")
