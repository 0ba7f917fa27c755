"""Any two measured quantities against each other: whiskers, the limits' box, the front.

Everything that a change of axes needs is worked out here and travels in the figure's ``meta``; the page's script only
puts it in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

from autotune.constraints import Constraint
from autotune.finished import FinishedRun, FinishedTrial, unit_of
from autotune.pareto import Direction
from autotune.report.groups import DIMMED, GROUPS, Group, grouped
from autotune.report.page import plain
from autotune.report.parameters import told, varied
from autotune.report.wording import interval, number, with_unit
from objectives.base import OBJECTIVES

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_HEIGHT = 470
#: Above as many trials the whiskers of those off the front would hide the plot; they stay in its hover texts.
_MANY = 80
_FAR = 1000.0


@dataclass(frozen=True)
class Axis:
    """``limits`` are those on this very quantity; ``shown`` and ``shown_feasible`` the ends of the axis with all
    trials and without those that a reader may hide; ``allowed`` the part on which the limits hold."""

    key: str
    title: str
    direction: Direction
    asked: bool
    limits: tuple[str, ...]
    shown: tuple[float, float]
    shown_feasible: tuple[float, float]
    allowed: tuple[float, float]


def axes(run: FinishedRun, chosen: int | None) -> list[Axis]:
    """Every quantity that a plotted trial has: the objectives, then what limits are on, then the rest."""
    groups = grouped(run, chosen)
    plotted = [t for trials in groups.values() for t in trials]
    keys = dict.fromkeys([key for key, _ in run.objectives] + [c.objective for c in run.constraints]
                         + [key for t in plotted for key in t.values])
    seen = [key for key in keys if any(key in t.values for t in plotted)]
    kept = [t for name, trials in groups.items() if name not in DIMMED for t in trials]
    return [_axis(run, key, plotted, kept) for key in seen]


def _axis(run: FinishedRun, key: str, plotted: Sequence[FinishedTrial], kept: Sequence[FinishedTrial]) -> Axis:
    direction = _direction(run, key)
    limits = [c for c in run.constraints if c.objective == key and (not c.relative or c.baseline is not None)]
    shown = _ends(key, plotted, limits)
    low, high = shown[0] - _FAR * (shown[1] - shown[0]), shown[1] + _FAR * (shown[1] - shown[0])
    unit = unit_of(key, run.units)
    better = "more" if direction == "maximize" else "less"
    return Axis(
        key, f"{key}{f' ({unit})' if unit else ''} · {better} is better", direction,
        asked=key in dict(run.objectives), limits=tuple(c.expr for c in limits),
        shown=shown, shown_feasible=_ends(key, kept, limits) if any(key in t.values for t in kept) else shown,
        allowed=(max([low, *(c.bound for c in limits if c.op == ">=")]),
                 min([high, *(c.bound for c in limits if c.op == "<=")])),
    )


def _direction(run: FinishedRun, key: str) -> Direction:
    known = dict(run.objectives)
    if key in known:
        return known[key]
    objective = OBJECTIVES.get(key.partition(".")[0])
    if objective:
        return objective.direction
    return "minimize" if any(c.objective == key and c.op == "<=" for c in run.constraints) else "maximize"


def _ends(key: str, trials: Sequence[FinishedTrial], limits: Sequence[Constraint]) -> tuple[float, float]:
    """Room for every interval, and for a limit that is no further away than the values are apart."""
    found = [v for t in trials if key in t.values
             for v in (t.values[key].value, t.values[key].low, t.values[key].high) if v is not None]
    low, high = min(found), max(found)
    span = high - low or abs(high) * 0.2 or 1.0
    near = [c.bound for c in limits if low - span <= c.bound <= high + span]
    low, high = min([low, *near]), max([high, *near])
    return low - 0.06 * span, high + 0.06 * span


def staircase(trials: Sequence[FinishedTrial], x: Axis, y: Axis) -> dict[str, list[float]]:
    """The corners of the feasible front in two quantities, from left to right: what no feasible trial is better than
    in both. Empty where there is no feasible trial."""
    up_x, up_y = x.direction == "maximize", y.direction == "maximize"
    points = {(t.values[x.key].value, t.values[y.key].value) for t in trials
              if t.feasible and x.key in t.values and y.key in t.values}
    corners: list[tuple[float, float]] = []
    for px, py in sorted(points, key=lambda p: (-p[0] if up_x else p[0], -p[1] if up_y else p[1])):
        if not corners or (py > corners[-1][1] if up_y else py < corners[-1][1]):
            corners.append((px, py))
    corners.sort()
    return {"x": [p[0] for p in corners], "y": [p[1] for p in corners]}


def hover(run: FinishedRun, trial: FinishedTrial, names: Sequence[str]) -> str:
    """What is said of a trial under the pointer: lines for Plotly."""
    keys = dict.fromkeys([key for key, _ in run.objectives] + [c.objective for c in run.constraints])
    lines = [f"<b>trial {trial.number}</b> {plain(trial.deploy_point)}"]
    lines += [f"{plain(key)} <b>{number(trial.values[key].value)}</b>{plain(with_unit(trial.values[key].unit))} "
              f"{interval(trial.values[key])}" for key in keys if key in trial.values]
    parts = [f"{plain(name)} {plain(told(trial.params.get(name)))}" for name in names]
    lines += [", ".join(parts[i:i + 3]) for i in range(0, len(parts), 3)]
    if trial.tied_with is not None:
        lines.append(f"tied with trial {trial.tied_with}")
    return "<br>".join(lines)


def pareto_figure(run: FinishedRun, chosen: int | None) -> Figure | None:
    """The first two objectives to begin with, or the first against what else there is; None where nothing can be
    plotted: no trial was measured, or only one quantity."""
    from plotly.graph_objects import Figure

    found = axes(run, chosen)
    if len(found) < 2:
        return None
    groups = grouped(run, chosen)
    y, x = found[0], found[1]
    columns = {axis.key: _columns(axis.key, groups) for axis in found}
    fronts: dict[str, dict[str, Any]] = {}
    for a, b in permutations(found, 2):
        fronts.setdefault(a.key, {})[b.key] = staircase(run.complete, a, b)
    meta = {
        "axes": {axis.key: {**vars(axis), "title": plain(axis.title)} for axis in found},
        "columns": columns, "fronts": fronts, "dimmed": [1 + i for i, g in enumerate(GROUPS) if g.name in DIMMED],
        "unplotted": [c.expr for c in run.constraints],
    }
    return Figure(_traces(run, groups, columns, fronts, x, y), _layout(x, y, meta))


def _columns(key: str, groups: Mapping[str, Sequence[FinishedTrial]]) -> dict[str, list[list[float | None]]]:
    """Values and both whiskers' lengths, a list a group."""
    parts: dict[str, list[list[float | None]]] = {"value": [], "plus": [], "minus": []}
    for trials in groups.values():
        found = [t.values.get(key) for t in trials]
        parts["value"].append([m.value if m else None for m in found])
        parts["plus"].append([m.high - m.value if m and m.high is not None else None for m in found])
        parts["minus"].append([m.value - m.low if m and m.low is not None else None for m in found])
    return parts


def _traces(
    run: FinishedRun, groups: Mapping[str, Sequence[FinishedTrial]], columns: Mapping[str, Any],
    fronts: Mapping[str, Any], x: Axis, y: Axis,
) -> list[dict[str, Any]]:
    names = varied(run.trials)
    many = sum(map(len, groups.values())) > _MANY
    line = {"type": "scatter", "mode": "lines", "name": "front of these two", "hoverinfo": "skip",
            **fronts[x.key][y.key], "line": {"color": GROUPS[3].colour, "width": 1.5, "dash": "dot",
                     "shape": "hv" if x.direction == "minimize" else "vh"},
            "showlegend": bool(groups["front"] or groups["feasible"])}
    traces = [line]
    for index, group in enumerate(GROUPS):
        trials = groups[group.name]
        title = group.title if group.name != "chosen" or run.selected is not None else "nearest to the limits"
        whiskers = not many or group.name in ("front", "chosen")

        traces.append({
            "type": "scatter", "mode": "markers", "name": title, "opacity": group.opacity, "showlegend": bool(trials),
            "marker": {"color": group.colour, "symbol": group.symbol, "size": group.size, "line": {
                "width": 2 if group.symbol.endswith("open") else 0}},
            "x": columns[x.key]["value"][index], "y": columns[y.key]["value"][index],
            "error_x": _whiskers(columns[x.key], index, group, whiskers),
            "error_y": _whiskers(columns[y.key], index, group, whiskers),
            "customdata": [t.number for t in trials], "text": [hover(run, t, names) for t in trials],
            "hovertemplate": "%{text}<extra></extra>", "unselected": {"marker": {"opacity": 0.12}},
        })
    ring = {"type": "scatter", "mode": "markers", "x": [], "y": [], "hoverinfo": "skip", "showlegend": False,
            "marker": {"symbol": "circle-open", "size": 24, "line": {"width": 2.5}, "color": GROUPS[4].colour}}
    return [*traces, ring]


def _whiskers(column: Mapping[str, Any], index: int, group: Group, visible: bool) -> dict[str, Any]:
    return {"type": "data", "symmetric": False, "array": column["plus"][index], "arrayminus": column["minus"][index],
            "visible": visible, "thickness": 1, "width": 3, "color": group.colour}


def _layout(x: Axis, y: Axis, meta: Mapping[str, Any]) -> dict[str, Any]:
    def axis(found: Axis) -> dict[str, Any]:
        return {"title": {"text": plain(found.title), "standoff": 8}, "range": found.shown, "zeroline": False,
                "automargin": True, "showline": True, "ticks": "outside"}

    return {
        "template": "none", "height": _HEIGHT, "margin": {"l": 60, "r": 12, "t": 30, "b": 50}, "meta": meta,
        "xaxis": axis(x), "yaxis": axis(y), "hovermode": "closest", "dragmode": "zoom",
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "x": 0, "y": -0.17, "yanchor": "top", "font": {"size": 12}},
        "hoverlabel": {"align": "left"}, "shapes": [box(x, y)] if x.limits or y.limits else [],
    }


def box(x: Axis, y: Axis) -> dict[str, Any]:
    """The part of the plot in which the limits on its two quantities hold."""
    return {"type": "rect", "layer": "below", "fillcolor": "rgba(46,160,67,0.12)",
            "x0": x.allowed[0], "x1": x.allowed[1], "y0": y.allowed[0], "y1": y.allowed[1],
            "line": {"color": "#2ea043", "width": 1, "dash": "dot"}}
