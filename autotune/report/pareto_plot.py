"""Any two measured quantities against each other: whiskers, the limits' box, the front.

Everything that a change of axes needs is worked out here and travels in the figure's ``meta``; the page's script only
puts it in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import TYPE_CHECKING, Any

from autotune.finished import FinishedRun, FinishedTrial
from autotune.report.axes import Axis, axes, box, staircase
from autotune.report.groups import CHOSEN, FRONT, GROUPS, Group, grouped, title_of
from autotune.report.page import plain
from autotune.report.parameters import told, varied
from autotune.report.wording import interval, number, with_unit

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_HEIGHT = 470
#: Above as many trials the whiskers of those off the front would hide the plot; they stay in its hover texts.
_MANY = 80


def hover(run: FinishedRun, trial: FinishedTrial, names: Sequence[str]) -> str:
    """What is said of a trial under the pointer: lines for Plotly."""
    lines = [f"<b>trial {trial.number}</b> {plain(trial.deploy_point)}"]
    lines += [f"{plain(key)} <b>{number(trial.values[key].value)}</b>{plain(with_unit(trial.values[key].unit))} "
              f"{interval(trial.values[key])}" for key in run.asked if key in trial.values]
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
        "columns": columns, "fronts": fronts, "box": box(x, y), "limits": [c.expr for c in run.constraints],
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
    """The front, a trace a group, and a ring for the trial that a reader points out."""
    shape = "hv" if x.direction == "minimize" else "vh"
    front = {"type": "scatter", "mode": "lines", "name": "front of these two", "hoverinfo": "skip",
             **fronts[x.key][y.key], "line": {"color": FRONT.colour, "width": 1.5, "dash": "dot", "shape": shape},
             "showlegend": bool(fronts[x.key][y.key]["x"])}
    ring = {"type": "scatter", "mode": "markers", "x": [], "y": [], "hoverinfo": "skip", "showlegend": False,
            "marker": {"symbol": "circle-open", "size": 24, "line": {"width": 2.5}, "color": CHOSEN.colour}}
    names = varied(run.trials)
    many = sum(map(len, groups.values())) > _MANY
    traces = []
    for index, group in enumerate(GROUPS):
        trials = groups[group.name]
        whiskers = not many or group in (FRONT, CHOSEN)
        traces.append({
            **_look(group), "name": title_of(group, run), "showlegend": bool(trials),
            "x": columns[x.key]["value"][index], "y": columns[y.key]["value"][index],
            "error_x": _whiskers(columns[x.key], index, group, whiskers),
            "error_y": _whiskers(columns[y.key], index, group, whiskers),
            "customdata": [t.number for t in trials], "text": [hover(run, t, names) for t in trials],
        })
    return [front, *traces, ring]


def _look(group: Group) -> dict[str, Any]:
    line = {"width": 2 if group.symbol.endswith("open") else 0}
    return {"type": "scatter", "mode": "markers", "opacity": group.opacity, "meta": {"dimmed": group.dimmed},
            "marker": {"color": group.colour, "symbol": group.symbol, "size": group.size, "line": line},
            "hovertemplate": "%{text}<extra></extra>", "unselected": {"marker": {"opacity": 0.12}}}


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
