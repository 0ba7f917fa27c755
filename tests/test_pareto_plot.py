"""Any two measured quantities against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotune import pareto
from autotune.finished import FinishedRun, read_run
from autotune.report.pareto_plot import axes, box, hover, pareto_figure, staircase
from tests import finished_runs, reports


def run(folder: Path, **changes: Any) -> FinishedRun:
    return read_run(finished_runs.write(folder / "run", **changes))


def test_objectives_come_first_and_every_measured_quantity_is_there(tmp_path: Path) -> None:
    found = axes(run(tmp_path), 2)
    assert [a.key for a in found][:4] == ["accuracy", "latency_ms.p50", "size_mb", "latency_ms.p95"]
    assert {a.key for a in found if not a.asked} == {"latency_ms.p95", "macro_f1", "ttft_ms.p50", "peak_rss_mb"}
    assert found[1].title == "latency_ms.p50 (ms) · less is better"
    assert {a.key: a.direction for a in found}["macro_f1"] == "maximize"


def test_an_objective_of_the_users_own(tmp_path: Path) -> None:
    document = finished_runs.document()
    for trial in document["trials"]:
        trial["values"]["mine:rouge"] = finished_runs.value(0.5, 0.1, 128)
    found = axes(run(tmp_path, trials=document["trials"], objectives=[
        {"name": "mine:rouge", "direction": "maximize", "unit": ""}, *document["objectives"]]), 2)
    assert (found[0].key, found[0].direction) == ("mine:rouge", "maximize")


@pytest.mark.parametrize("keys", [("latency_ms.p50", "accuracy"), ("accuracy", "size_mb"), ("size_mb", "latency_ms.p50"),
                                  ("accuracy", "macro_f1")])
def test_the_staircase_is_the_front_of_the_two(tmp_path: Path, keys: tuple[str, str]) -> None:
    found = run(tmp_path, **reports.many(150))
    by_key = {a.key: a for a in axes(found, None)}
    x, y = by_key[keys[0]], by_key[keys[1]]
    feasible = [t.candidate() for t in found.complete if t.feasible]
    front = pareto.front(feasible, [(x.key, x.direction), (y.key, y.direction)], ())
    expected = sorted({(found.trial(n).values[x.key].value, found.trial(n).values[y.key].value) for n in front})
    corners = staircase(found.complete, x, y)
    assert list(zip(corners["x"], corners["y"], strict=True)) == expected


def test_the_box_ends_at_the_limits_and_else_lies_beyond_the_plot(tmp_path: Path) -> None:
    by_key = {a.key: a for a in axes(run(tmp_path), 2)}
    shape = box(by_key["latency_ms.p95"], by_key["accuracy"])
    assert (shape["y0"], shape["x1"]) == (0.6, 600)
    assert shape["y1"] > by_key["accuracy"].shown[1] + 100 * (by_key["accuracy"].shown[1] - by_key["accuracy"].shown[0])
    assert shape["x0"] < 0


def test_an_axis_has_room_for_whiskers_and_for_a_limit_that_is_near(tmp_path: Path) -> None:
    by_key = {a.key: a for a in axes(run(tmp_path), 2)}
    accuracy = by_key["accuracy"]
    assert accuracy.shown[0] < 0.44 < 0.81 < accuracy.shown[1]
    assert accuracy.shown_feasible[0] > accuracy.shown[0]
    assert by_key["latency_ms.p95"].shown[1] > 600
    far = run(tmp_path / "far", constraints=[{"expr": "size_mb <= 9000", "objective": "size_mb", "op": "<=", "unit": "MB",
                                              "bound": 9000.0, "baseline": None}])
    assert {a.key: a for a in axes(far, 2)}["size_mb"].shown[1] < 700


def test_the_figure_holds_each_trial_once_with_its_whiskers(tmp_path: Path) -> None:
    figure = pareto_figure(run(tmp_path), 2)
    assert figure is not None
    groups = figure.data[1:-1]
    assert sorted(n for g in groups for n in g.customdata) == [0, 1, 2, 3]
    chosen = groups[-1]
    assert (list(chosen.x), list(chosen.y)) == ([280], [0.75])
    assert list(chosen.error_y.array) == [pytest.approx(0.06)]
    open_end = figure.layout.meta["columns"]["latency_ms.p95"]
    assert open_end["plus"][-1] == [None]
    assert open_end["minus"][-1] == [pytest.approx(8)]


def test_the_hover_says_values_intervals_parameters_and_ties_as_plain_text(tmp_path: Path) -> None:
    trials = finished_runs.document()["trials"]
    trials[2]["deploy_point"] = reports.HOSTILE
    found = run(tmp_path, trials=trials)
    text = hover(found, found.trial(2), ["rank"])
    assert "accuracy <b>0.750</b> [0.690, 0.810], n 128" in text
    assert "latency_ms.p95 <b>308</b> ms [300, …], n 20" in text
    assert "rank 16" in text
    assert "tied with trial 0" in text
    assert "<img" not in text


def test_many_trials_keep_whiskers_on_the_front_alone(tmp_path: Path) -> None:
    figure = pareto_figure(run(tmp_path, **reports.many(200)), 2)
    assert figure is not None
    assert [g.error_y.visible for g in figure.data[1:-1]] == [False, False, False, True, True]


@pytest.mark.parametrize("changes", [reports.hopeless(), {"trials": [], "front": [], "selected": None}])
def test_without_a_trial_there_is_no_figure(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert pareto_figure(run(tmp_path, **changes), None) is None


def test_one_trial_is_a_figure(tmp_path: Path) -> None:
    trial = finished_runs.trial(0, "int4", 8, 0.7, 180, 210, on_front=True)
    assert pareto_figure(run(tmp_path, trials=[trial], front=[0], selected={
        "trial": 0, "policy": "knee", "certificate": None}), 0) is not None
