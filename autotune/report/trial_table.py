"""The table of all trials: cells with what they are sorted by and what they are filtered by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autotune.finished import FinishedRun, FinishedTrial, unit_of
from autotune.report.groups import group_of
from autotune.report.parameters import told, varied
from autotune.report.wording import interval, number
from autotune.stats import Measurement


@dataclass(frozen=True)
class Column:
    """``right`` aligns numbers; ``more`` marks what is shown on demand alone."""

    title: str
    unit: str = ""
    right: bool = False
    more: bool = False


@dataclass(frozen=True)
class Cell:
    """``key`` is what the column is sorted by: a number, a text, or None, which goes last. ``note`` stands below in
    small; ``verdicts`` are (limit, verdict)."""

    text: str
    key: float | str | None
    note: str = ""
    verdicts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Row:
    """``state`` is the trial's, ``feasible`` yes, no or empty; ``group`` as in the plots, empty for one without
    values."""

    number: int
    state: str
    feasible: str
    group: str
    front: bool
    cells: tuple[Cell, ...]


def trial_table(run: FinishedRun, chosen: int | None) -> tuple[list[Column], list[Row]]:
    """Every trial, in the order of its number; the columns are the same for all."""
    names = varied(run.trials, deploy=False)
    asked = run.asked
    rest = list(dict.fromkeys(key for t in run.trials for key in t.values if key not in asked))
    columns = [
        Column("trial", right=True), Column("what came of it"), Column("artifact"),
        *(Column(key, unit_of(key, run.units), right=True) for key in asked),
        *(Column(name, right=_numeric(run.trials, name)) for name in names),
        *(Column(key, unit_of(key, run.units), right=True, more=True) for key in rest),
    ]
    return columns, [_row(run, trial, chosen, names, asked, rest) for trial in run.trials]


def _row(
    run: FinishedRun, trial: FinishedTrial, chosen: int | None, names: Sequence[str], asked: Sequence[str],
    rest: Sequence[str],
) -> Row:
    group = group_of(trial, chosen) or ""
    cells = (
        Cell(str(trial.number), trial.number), _outcome(run, trial, chosen),
        Cell(trial.deploy_point, trial.deploy_point),
        *(_measured(trial.values.get(key), _verdicts(run, trial, key)) for key in asked),
        *(_parameter(trial.params.get(name)) for name in names),
        *(_measured(trial.values.get(key)) for key in rest),
    )
    feasible = {True: "yes", False: "no", None: ""}[trial.feasible]
    return Row(trial.number, trial.state, feasible, group, trial.on_front, cells)


def _outcome(run: FinishedRun, trial: FinishedTrial, chosen: int | None) -> Cell:
    words = {"COMPLETE": "meets the limits" if trial.feasible else "misses a limit", "PRUNED": "stopped early",
             "FAILED": "failed", "RUNNING": "not finished"}
    text = words.get(trial.state, trial.state)
    if trial.on_front:
        text = "on the front"
    if trial.number == chosen:
        text = "chosen" if run.selected is not None else "nearest to the limits"
    tie = f"tied with trial {trial.tied_with}" if trial.tied_with is not None else ""
    return Cell(text, text, trial.reason or tie)


def _verdicts(run: FinishedRun, trial: FinishedTrial, key: str) -> tuple[tuple[str, str], ...]:
    return tuple((c.expr, trial.verdicts[c.expr]) for c in run.constraints
                 if c.objective == key and c.expr in trial.verdicts)


def _measured(m: Measurement | None, verdicts: tuple[tuple[str, str], ...] = ()) -> Cell:
    return Cell(number(m.value), m.value, interval(m), verdicts) if m else Cell("–", None)


def _parameter(value: Any) -> Cell:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(told(value), float(value) if is_number else None if value is None else told(value))


def _numeric(trials: Sequence[FinishedTrial], name: str) -> bool:
    values = [t.params.get(name) for t in trials]
    return all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in values)
