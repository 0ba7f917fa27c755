"""``autotune doctor``: what this machine can do for a study, and what it cannot."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from autotune.doctor.finding import Finding
    from autotune.doctor.selftest import Step
    from autotune.workers import Worker

EXIT_CODES = "Exit codes: 0 studies run here, with warnings or without; 1 a run would fail; 2 bad usage."
_STYLES: Mapping[str, str] = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red bold"}


def doctor(
    model: Annotated[str | None, typer.Option(
        help="Look at this base model too: org/name, a folder, a .gguf file or package:NAME.", show_default=False)]
    = None,
    store: Annotated[Path | None, typer.Option(
        help="The store to look at. Default: $AUTOTUNE_STORE, or a cache folder.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")] = False,
) -> None:
    """Check versions, machine, devices and store, then run a tiny study's every step."""
    from autotune.doctor.finding import sentence

    console = Console(highlight=False, quiet=as_json, width=None if sys.stdout.isatty() else 300)
    findings = _looked_at(store, model)
    _show(console, findings)
    with _worker() as (worker, scratch, log):
        heavy = _devices(worker)
        _show(console, heavy)
        steps = _self_test(console, worker, scratch)
        findings += [*heavy, _judged(steps)]
        if all(f.state == "ok" for f in findings[-len(heavy) - 1:]):
            log.unlink(missing_ok=True)
    _advise(console, findings)
    said = sentence(findings)
    fails = any(f.state == "problem" for f in findings)
    if as_json:
        print(json.dumps({"ok": not fails, "sentence": said, "findings": [asdict(f) for f in findings],
                          "self_test": [asdict(step) for step in steps]}, ensure_ascii=False))
    console.print(f"\n[bold]{escape(said)}[/]")
    raise typer.Exit(1 if fails else 0)


def _looked_at(store: Path | None, model: str | None) -> list[Finding]:
    """Everything that can be seen without loading a library. The load comes first, before we are one."""
    from autotune.doctor.base_model import base_model
    from autotune.doctor.libraries import libraries
    from autotune.doctor.processor import processor
    from autotune.doctor.resources import load_now, resources
    from autotune.doctor.storage import storage
    from autotune.preparation import store_root

    load = load_now()
    found = [*libraries(), *processor(), *resources(), load, *storage(store_root(store, dict(os.environ)))]
    return [*found, base_model(model)] if model else found


@contextmanager
def _worker() -> Iterator[tuple[Worker, Path, Path]]:
    """A worker process, a folder to work in, and the log of what the worker prints, which outlives both."""
    import tempfile

    from autotune.workers import Worker

    with tempfile.TemporaryDirectory(prefix="autotune-doctor-") as scratch:
        log = Path(tempfile.gettempdir()) / f"{Path(scratch).name}.log"
        worker = Worker(log)
        try:
            yield worker, Path(scratch), log
        finally:
            worker.close()


def _devices(worker: Worker) -> list[Finding]:
    from autotune.doctor.devices import devices
    from autotune.doctor.libraries import installed

    return devices(worker, [name for name in ("onnxruntime-gpu", "onnxruntime-genai-cuda") if installed(name)])


def _self_test(console: Console, worker: Worker, scratch: Path) -> list[Step]:
    """Runs as work does, so never beside a measurement of latency."""
    from autotune.doctor.selftest import SelfTest
    from autotune.machine_lock import MachineLock

    console.print("\n[bold]self-test[/]: a study's every step on a tiny random model")
    steps = []
    with MachineLock(on_wait=lambda said: console.print(escape(said))).working():
        for step in SelfTest(worker, scratch).steps():
            steps.append(step)
            mark = "[red bold]failed[/]" if step.error else "[green]ok[/]"
            console.print(f"  {mark:<22} {step.name:<24}{step.seconds:6.1f} s  {escape(step.error or step.found)}",
                          soft_wrap=True)
    return steps


def _judged(steps: Sequence[Step]) -> Finding:
    from autotune.doctor.finding import Finding

    last = steps[-1]
    if last.error:
        return Finding("self-test", last.name, last.error, "problem", "every run from this step on",
                       "pip install --force-reinstall autotune-edge, in a fresh environment")
    return Finding("self-test", "self-test", f"{len(steps)} steps in {sum(s.seconds for s in steps):.0f} s")


def _show(console: Console, findings: Sequence[Finding]) -> None:
    from rich.table import Table

    topics = dict.fromkeys(f.topic for f in findings)
    for topic in topics:
        table = Table(box=None, pad_edge=False, show_header=False)
        for finding in findings:
            if finding.topic == topic:
                table.add_row(f"  [{_STYLES[finding.state]}]{finding.state}[/]", escape(finding.name),
                              escape(finding.found))
        console.print(f"\n[bold]{escape(topic)}[/]")
        console.print(table)


def _advise(console: Console, findings: Sequence[Finding]) -> None:
    """A line for each finding that wants something done, the worst first."""
    wanting = [f for state in ("problem", "warning", "note") for f in findings if f.state == state and f.mend]
    if wanting:
        console.print()
    for f in wanting:
        console.print(f"[{_STYLES[f.state]}]{f.state}[/] {escape(f.name)}: {escape(f.found)}. Affects: "
                      f"{escape(f.affects)}. Mend: [bold]{escape(f.mend)}[/]", soft_wrap=True)
