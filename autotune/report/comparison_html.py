"""A comparison of runs as one HTML page: the fronts overlaid, then the sections that every output has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autotune import pareto
from autotune.comparing.comparison import Comparison, Entrant
from autotune.finished import FinishedTrial, unit_of
from autotune.pareto import Direction, losses
from autotune.report.comparison_sections import title
from autotune.report.page import figure_html, plain, render
from autotune.report.parameters import adapter_text
from autotune.report.sections import Section
from autotune.report.wording import axis_title, show, with_unit

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: Told apart by shape and dash as well as by colour; legible on a light ground and on a dark one.
_COLOURS = ("#2f81c5", "#d9722e", "#2a9d6f", "#b05cc6", "#b8930b", "#d0506a", "#3ba7b5")
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "x", "pentagon")
_DASHES = ("solid", "dash", "dot", "dashdot")
_HEIGHT = 460


def page(found: Comparison, sections: Sequence[Section]) -> str:
    """The whole page as text; ``sections`` are its tables."""
    figures = [figure_html(front_figure(found, cost), f"front-{i}", f"{found.gain} against {cost}: the runs' fronts")
               for i, cost in enumerate(found.stretches)]
    return render("comparison.html.j2", title=title(found), warnings=found.warnings, figures=figures, gain=found.gain,
                  sections=sections)


def front_figure(found: Comparison, cost: str) -> Figure:
    """Every front's trials with their intervals, and the best within each budget as a line; other complete trials,
    which are dominated, off limits or worse in these two objectives, stand behind, small."""
    from plotly.graph_objects import Figure

    directions = dict(found.objectives)
    furthest = max((_loss(t, cost, directions) for e in found.entrants for t in e.run.complete), default=(0.0,))
    traces: list[dict[str, Any]] = []
    for i, entrant in enumerate(found.entrants):
        look = {"color": _COLOURS[i % len(_COLOURS)], "symbol": _SYMBOLS[i % len(_SYMBOLS)]}
        front = entrant.front
        rest = [t for t in entrant.run.complete if t not in entrant.front]
        traces += [
            _markers(found, entrant, rest, cost, {**look, "symbol": f"{look['symbol']}-open", "size": 6}, 0.45),
            _line(front, cost, found.gain, directions, furthest, {
                "color": look["color"], "dash": _DASHES[i % len(_DASHES)], "width": 2, "shape": "hv"}, entrant.label),
            {**_markers(found, entrant, front, cost, {**look, "size": 11}, 1.0), "name": plain(entrant.label),
             "showlegend": True, "error_x": _whiskers(front, cost, look["color"]),
             "error_y": _whiskers(front, found.gain, look["color"])},
        ]
    return Figure(traces, _layout(found, cost, directions))


def _markers(
    found: Comparison, entrant: Entrant, trials: Sequence[FinishedTrial], cost: str, marker: Mapping[str, Any],
    opacity: float,
) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "x": [t.values[cost].value for t in trials],
        "y": [t.values[found.gain].value for t in trials], "marker": marker, "opacity": opacity, "showlegend": False,
        "legendgroup": entrant.label, "text": [_hover(found, entrant, t) for t in trials],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _hover(found: Comparison, entrant: Entrant, trial: FinishedTrial) -> str:
    lines = [f"<b>{plain(entrant.label)}, trial {trial.number}</b> {plain(trial.deploy_point)}",
             plain(adapter_text(trial.params)),
             *(plain(f"{key} {show(trial.values[key], True)}{with_unit(trial.values[key].unit)}")
               for key, _ in found.objectives)]
    return "<br>".join(lines)


def _line(
    front: Sequence[FinishedTrial], cost: str, gain: str, directions: Mapping[str, Direction],
    furthest: tuple[float, ...], line: Mapping[str, Any], label: str,
) -> dict[str, Any]:
    """The best ``gain`` within each budget, from the front's first corner to the ``furthest`` budget that is shown."""
    points = [(t.values[cost].value, t.values[gain].value) for t in front]
    corners = pareto.corners(points, (directions[cost], directions[gain]))
    x, y = [p[0] for p in corners], [p[1] for p in corners]
    if corners:
        x.append(furthest[0] if directions[cost] == "minimize" else -furthest[0])
        y.append(y[-1])
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "showlegend": False,
            "legendgroup": label, "hoverinfo": "skip"}


def _loss(trial: FinishedTrial, key: str, directions: Mapping[str, Direction]) -> tuple[float, ...]:
    return losses(trial.candidate().values, [(key, directions[key])])


def _whiskers(trials: Sequence[FinishedTrial], key: str, colour: str) -> dict[str, Any]:
    values = [t.values[key] for t in trials]
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 1, "width": 3,
        "array": [m.high - m.value if m.high is not None else 0.0 for m in values],
        "arrayminus": [m.value - m.low if m.low is not None else 0.0 for m in values],
    }


def _layout(found: Comparison, cost: str, directions: Mapping[str, Direction]) -> dict[str, Any]:
    def axis(key: str) -> dict[str, Any]:
        title = axis_title(key, unit_of(key, found.entrants[0].run.units), directions[key])
        return {"title": {"text": plain(title), "standoff": 8}, "zeroline": False, "automargin": True,
                "showline": True, "ticks": "outside"}

    return {
        "template": "none", "height": _HEIGHT, "margin": {"l": 60, "r": 12, "t": 12, "b": 50},
        "xaxis": axis(cost), "yaxis": axis(found.gain), "hovermode": "closest",
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "x": 0, "y": -0.18, "yanchor": "top"}, "hoverlabel": {"align": "left"},
    }
