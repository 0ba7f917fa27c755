"""What a person sees while a study runs: a bar with time left, a line a trial, the front, one sentence."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from autotune.constraints import Constraint
from autotune.pipeline.progress import Report, silent
from autotune.report.outcome import Outcome, hopeless_sentence, sentence
from autotune.report.wording import part, show
from autotune.search.rungs import Rung
from autotune.trials import Screening, TrialRecord
from objectives.base import Objective
from search_spaces.adapter import AdapterParams

_WORTH_A_LINE_S = 2.0
Objectives = Sequence[tuple[str, Objective]]


class Terminal:
    """Writes to a console. With ``quiet`` (a program reads our stdout) it all goes to stderr, with ``silent``
    nowhere."""

    def __init__(self, quiet: bool = False, silent: bool = False) -> None:
        self.console = Console(stderr=quiet, highlight=False, quiet=silent)
        if not self.console.is_terminal:
            self.console = Console(stderr=quiet, highlight=False, width=140, quiet=silent)
        self._plan = ""
        self._heading_of: int | None = None
        self._lock, self._running = threading.Lock(), 0
        self._progress: Progress

    def plan(self, text: str) -> None:
        """Where the study as a whole is; stands before each stage's bar."""
        self._plan = text

    def say(self, text: str) -> None:
        self.console.print(escape(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        self.console.print(f"[yellow]note:[/] {escape(text)}", soft_wrap=True)

    @contextmanager
    def stage(self, title: str, expected_s: float | None = None) -> Iterator[Report]:
        """A bar with time left, gone when the stage ends; where no one watches, a line for what took long.

        ``expected_s`` is what such a stage took before: it moves the bar of a stage that reports nothing.
        """
        start = time.monotonic()
        if self.console.is_terminal:
            with self._bar(title, expected_s) as report:
                yield report
            return
        yield silent
        if time.monotonic() - start > _WORTH_A_LINE_S:
            self.console.print(f"  [dim]{escape(title)}: {time.monotonic() - start:.0f} s[/]")

    @contextmanager
    def _bar(self, title: str, expected_s: float | None) -> Iterator[Report]:
        reported, ended = threading.Event(), threading.Event()
        with self._bars() as bar:
            task = bar.add_task(escape(title), total=None, plan=escape(self._plan), note="")

            def report(done: float, total: float, note: str = "") -> None:
                reported.set()
                bar.update(task, completed=done, total=total, note=escape(note))

            def by_the_clock(expected: float) -> None:
                start = time.monotonic()
                while not ended.wait(0.5) and not reported.is_set():
                    elapsed = time.monotonic() - start
                    bar.update(task, completed=elapsed, total=max(expected, elapsed * 1.05))

            if expected_s:
                threading.Thread(target=by_the_clock, args=(expected_s,), daemon=True).start()
            try:
                yield report
            finally:
                ended.set()
                bar.update(task, visible=False)

    @contextmanager
    def _bars(self) -> Iterator[Progress]:
        """The bars of all stages that run just now: a console has one place for them, gone with the last."""
        columns = (
            SpinnerColumn(), TextColumn("{task.fields[plan]}", style="dim"), TextColumn("{task.description}"),
            BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        with self._lock:
            if not self._running:
                self._progress = Progress(*columns, console=self.console, transient=True)
                self._progress.start()
            self._running += 1
            bars = self._progress
        try:
            yield bars
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    bars.stop()

    def training(self, adapters: Sequence[tuple[int, AdapterParams]], fraction: float) -> None:
        """Which adapters are trained next, by their places, and how far."""
        share = "" if fraction == 1 else f"  to {part(fraction)} of its steps"
        for number, params in adapters:
            self._heading(number, f"{describe(params)}{share}")

    def scoring(self, number: int, params: AdapterParams) -> None:
        """Which adapter is scored next; nothing where the last heading was its own."""
        if self._heading_of != number:
            self._heading(number, describe(params))

    def judged(self, number: int, rung: Rung) -> None:
        """How an adapter answered at a rung."""
        if self._heading_of != number:
            self._heading(number, f"at step {rung.step}")
        right = ", ".join(f"{label} {count}" for label, count in rung.right.items())
        loss = f", loss {rung.valid_loss:.3f}" if rung.valid_loss is not None else ""
        self.say(f"  right of {rung.rows} rows, in PyTorch: {right}{loss}")

    def stopped(self, number: int, reason: str) -> None:
        self._heading_of = None
        self.console.print(f"[bold]adapter {number}[/]  [dim]{escape(reason)}[/]", soft_wrap=True)

    def skipped(self, number: int, params: AdapterParams, label: str, reason: str) -> None:
        self.scoring(number, params)
        self.console.print(f"  {'':<9} {escape(label):<22} [dim]{escape(reason)}[/]", soft_wrap=True)

    def _heading(self, number: int, text: str) -> None:
        self._heading_of = number
        self.console.print(f"[bold]adapter {number}[/]  {escape(text)}", soft_wrap=True)

    def trial(self, record: TrialRecord, objectives: Objectives, outcome: Outcome) -> None:
        mark = "[green]on the front[/]" if record.number in outcome.front else ""
        if record.state == "PRUNED" and record.failure:
            mark = f"[dim]{escape(record.failure[1])}[/]"
        shown = "  ".join(f"{key} {show(record.values[key])}" for key, _ in objectives)
        line = f"  trial {record.number:<3} {record.deploy.label:<22} {escape(shown)}  {mark}"
        self.console.print(line.rstrip(), soft_wrap=True)

    def failed(self, number: int, stage: str, reason: str) -> None:
        self.console.print(f"  trial {number:<3} [red]failed[/] at {escape(stage)}: {escape(reason)}", soft_wrap=True)

    def front(
        self, records: Sequence[TrialRecord], objectives: Objectives, outcome: Outcome, ties: Mapping[int, int]
    ) -> None:
        """A row a trial; ``ties`` are the trials whose answers cannot be told from a cheaper one's."""
        if not outcome.front:
            return
        table = Table(title="The front: feasible, and no other feasible trial is better in every objective",
                      title_justify="left", title_style="bold")
        table.add_column("trial", justify="right")
        table.add_column("adapter")
        table.add_column("artifact")
        for key, objective in objectives:
            table.add_column(f"{key}{f' ({objective.unit})' if objective.unit else ''}", justify="right")
        chosen = {r.number: r for r in records}
        for number in outcome.front:
            record = chosen[number]
            style = "bold green" if number == outcome.selected else ""
            label = record.deploy.label + (f"\ntied with trial {ties[number]}" if number in ties else "")
            table.add_row(str(number), escape(describe(record.adapter)), escape(label),
                          *(show(record.values[key], True).replace(" [", "\n[") for key, _ in objectives), style=style)
        self.console.print(table)


def describe(params: AdapterParams) -> str:
    """An adapter in a few words; what is at its default is left out."""
    parts = [f"r {params.rank}", f"alpha {params.alpha:.4g}", f"lr {params.learning_rate:.2g}", params.targets,
             f"{params.steps} steps" if params.steps else f"{params.epochs:g} epoch{'' if params.epochs == 1 else 's'}"]
    if params.dropout:
        parts.append(f"dropout {params.dropout:g}")
    if params.variant != "lora":
        parts.append(params.variant)
    if params.base_precision != "fp32":
        parts.append(f"{params.base_precision} base")
    return ", ".join(parts)


def verdict_sentence(
    records: Sequence[TrialRecord], objectives: Objectives, constraints: Sequence[Constraint], outcome: Outcome,
    units: dict[str, str], final: bool = True,
) -> str:
    """The search's answer in one sentence; with ``final`` false a certificate still follows."""
    return sentence({r.number: r.deploy.label for r in records}, {r.number: r.values for r in records},
                    [key for key, _ in objectives], constraints, outcome, units, final)


def dropped_sentence(screening: Screening, units: dict[str, str]) -> str:
    """Why there is nothing to choose, when no deploy point can meet the limits."""
    if screening.miss is None:
        return "No deploy point can meet the limits, so nothing was trained."
    miss, nearest = screening.miss, screening.dropped[screening.miss.trial]
    return hopeless_sentence(nearest.point.label, miss, units.get(miss.objective, ""))
