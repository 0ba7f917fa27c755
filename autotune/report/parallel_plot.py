"""Parallel coordinates: a line a trial through its parameters and what it measured.

Drawn with plain lines rather than Plotly's own ``parcoords``, which needs WebGL and ``eval``: this one prints, follows
the theme and runs under the page's policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autotune.finished import FinishedRun, FinishedTrial, unit_of
from autotune.report.groups import CHOSEN, FRONT, GROUPS, Group, grouped, title_of
from autotune.report.page import plain
from autotune.report.parameters import told, varied
from autotune.report.wording import interval, number

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_HEIGHT = 414
_WIDTH_OF_ONE = 96
#: Up to as many values a numeric parameter is shown as steps of equal height, as what a list in the study gave.
_STEPS = 6
#: A scale whose ends are so many times apart is logarithmic.
_LOG_FROM = 20.0
#: Lines through the same step are spread over so much of the axis, else they would lie on each other.
_SPREAD = 0.05


@dataclass(frozen=True)
class Dimension:
    """``places`` has a height between 0 and 1 for each trial, None where it has no value; ``ticks`` are heights with
    their texts, ``texts`` what is said of each trial."""

    title: str
    places: tuple[float | None, ...]
    ticks: tuple[tuple[float, str], ...]
    texts: tuple[str, ...]


def dimensions(run: FinishedRun, trials: Sequence[FinishedTrial]) -> list[Dimension]:
    """The parameters that the study varied, then its objectives; what is the same for all is left out."""
    found = [_of_values(name, [t.params.get(name) for t in trials]) for name in varied(trials)]
    for key, _ in run.objectives:
        measured = [t.values.get(key) for t in trials]
        known = [m.value for m in measured if m]
        if known and min(known) < max(known):
            unit = unit_of(key, run.units)
            texts = tuple(f"{number(m.value)} {interval(m)}" if m else "–" for m in measured)
            found.append(_scaled(f"{key}{f' ({unit})' if unit else ''}", [m.value if m else None for m in measured],
                                 number, texts))
    return found


def _of_values(name: str, values: Sequence[Any]) -> Dimension:
    distinct = {repr(v): v for v in values}
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in distinct.values())
    texts = tuple(map(told, values))
    if numeric and len(distinct) > _STEPS:
        return _scaled(name, list(values), told, texts)
    ordered = sorted(distinct.values()) if numeric else list(distinct.values())
    return _stepped(name, values, ordered, texts)


def _stepped(name: str, values: Sequence[Any], ordered: Sequence[Any], texts: tuple[str, ...]) -> Dimension:
    heights = {repr(v): (i + 0.5) / len(ordered) for i, v in enumerate(ordered)}
    spread = min(_SPREAD, 0.3 / len(ordered))
    places = tuple(heights[repr(v)] + spread * (2 * i / max(1, len(values) - 1) - 1) for i, v in enumerate(values))
    return Dimension(name, places, tuple((heights[repr(v)], told(v)) for v in ordered), texts)


def _scaled(
    name: str, values: Sequence[float | None], shown: Callable[[float], str], texts: tuple[str, ...]
) -> Dimension:
    known = [v for v in values if v is not None]
    low, high = min(known), max(known)
    log = low > 0 and high / low >= _LOG_FROM

    def place(value: float) -> float:
        return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)

    middle = math.sqrt(low * high) if log else (low + high) / 2
    return Dimension(name, tuple(None if v is None else round(place(v), 4) for v in values),
                     ((0.0, shown(low)), (0.5, shown(middle)), (1.0, shown(high))), texts)


def parallel_figure(run: FinishedRun, chosen: int | None) -> Figure | None:
    """None where there are not two trials that differ in anything."""
    from plotly.graph_objects import Figure

    groups = grouped(run, chosen)
    plotted = [t for trials in groups.values() for t in trials]
    found = dimensions(run, plotted)
    if len(plotted) < 2 or len(found) < 2:
        return None
    at = {t.number: i for i, t in enumerate(plotted)}
    traces = [_trace(group, title_of(group, run), groups[group.name], found, at) for group in GROUPS
              if groups[group.name]]
    picked = {"type": "scatter", "mode": "lines", "x": [], "y": [], "hoverinfo": "skip", "showlegend": False,
              "line": {"color": CHOSEN.colour, "width": 5}, "opacity": 0.6}
    return Figure([*traces, picked], _layout(found))


def _trace(
    group: Group, title: str, trials: Sequence[FinishedTrial], found: Sequence[Dimension], at: dict[int, int]
) -> dict[str, Any]:
    """One trace for a whole group: its lines one after the other, with a gap between."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial in trials:
        i = at[trial.number]
        x += [*range(len(found)), None]
        y += [*(d.places[i] for d in found), None]
        text += [f"<b>trial {trial.number}</b> {plain(trial.deploy_point)}<br>{plain(d.title)} {plain(d.texts[i])}"
                 for d in found] + [""]
    strong = group in (FRONT, CHOSEN)
    return {
        "type": "scatter", "mode": "lines+markers", "name": title, "x": x, "y": y, "text": text,
        "customdata": [t.number for t in trials for _ in range(len(found) + 1)],
        "hovertemplate": "%{text}<extra></extra>", "opacity": group.opacity if strong or len(at) <= 40 else 0.3,
        "line": {"color": group.colour, "width": 3 if group == CHOSEN else 2 if strong else 1},
        "marker": {"color": group.colour, "size": 6 if strong else 4},
        "meta": {"group": group.name, "dimmed": group.dimmed},
    }


def _layout(found: Sequence[Dimension]) -> dict[str, Any]:
    annotations = [
        {"x": i, "y": 1.03, "yref": "paper", "yanchor": "bottom", "text": f"<b>{_folded(d.title)}</b>",
         "showarrow": False, "font": {"size": 12}} for i, d in enumerate(found)
    ]
    annotations += [
        {"x": i, "y": height, "xanchor": "right", "xshift": -5, "text": plain(text), "showarrow": False,
         "font": {"size": 11}, "bgcolor": "#ffffff", "borderpad": 1}
        for i, d in enumerate(found) for height, text in d.ticks
    ]
    hidden = {"showgrid": False, "zeroline": False, "showticklabels": False, "showline": False, "ticks": "",
              "fixedrange": True}
    return {
        "template": "none", "height": _HEIGHT, "margin": {"l": 12, "r": 12, "t": 84, "b": 12},
        "meta": {"least_width": _WIDTH_OF_ONE * len(found)},
        "xaxis": {**hidden, "range": [-0.6, len(found) - 0.6]}, "yaxis": {**hidden, "range": [-0.06, 1.06]},
        "annotations": annotations, "hovermode": "closest", "dragmode": "select", "hoverlabel": {"align": "left"},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "x": 0, "y": -0.02, "yanchor": "top", "font": {"size": 12}},
        "shapes": [{"type": "line", "x0": i, "x1": i, "y0": 0, "y1": 1, "layer": "below",
                    "line": {"color": "#8b949e", "width": 1}} for i in range(len(found))],
    }


def _folded(title: str) -> str:
    """A name with its unit below; a long one on two lines, cut at an underscore or a point near its middle."""
    name, bracket, unit = title.partition(" (")
    lines = [name]
    cuts = [i + 1 for i, sign in enumerate(name[:-1]) if sign in "_. :"]
    if len(name) > 12 and cuts:
        cut = min(cuts, key=lambda i: abs(i - len(name) / 2))
        lines = [name[:cut], name[cut:]]
    return "<br>".join(map(plain, [*lines, bracket.strip() + unit] if unit else lines))
