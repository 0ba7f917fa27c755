"""How trials fall into groups, and what each group looks like in every plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotune.finished import FinishedRun, FinishedTrial


@dataclass(frozen=True)
class Group:
    """``symbol`` is Plotly's; a reader may hide what is ``dimmed``. Colours can be told apart on light and dark
    ground, also by the colour-blind; the symbols differ as well."""

    name: str
    title: str
    colour: str
    symbol: str
    size: int
    opacity: float
    dimmed: bool = False


#: In the order in which they are drawn, the last on top.
GROUPS = (
    Group("stopped", "stopped early", "#8b949e", "circle-open", 8, 0.7, dimmed=True),
    Group("infeasible", "misses a limit", "#8b949e", "x-thin-open", 8, 0.75, dimmed=True),
    Group("feasible", "meets the limits", "#5b8bb5", "circle", 8, 0.85),
    Group("front", "on the front", "#1f77d0", "diamond", 11, 1.0),
    Group("chosen", "chosen", "#e0701a", "star", 17, 1.0),
)
FRONT, CHOSEN = GROUPS[-2:]


def title_of(group: Group, run: FinishedRun) -> str:
    """For a legend: what the run chose, or what came nearest where it chose nothing."""
    return "nearest to the limits" if group.name == "chosen" and run.selected is None else group.title


def group_of(trial: FinishedTrial, chosen: int | None) -> str | None:
    """The name of the group; None for a trial without a measured value, which no plot can show."""
    if not trial.values or trial.state in ("FAILED", "RUNNING"):
        return None
    if trial.number == chosen:
        return "chosen"
    if trial.state == "PRUNED":
        return "stopped"
    if trial.on_front:
        return "front"
    return "feasible" if trial.feasible else "infeasible"


def grouped(run: FinishedRun, chosen: int | None) -> dict[str, Sequence[FinishedTrial]]:
    """The trials of every group by its name, in the order of ``GROUPS``; groups may be empty.

    ``chosen`` is the trial to point out: the selected one or, where nothing is, the nearest to the limits.
    """
    return {group.name: [t for t in run.trials if group_of(t, chosen) == group.name] for group in GROUPS}
