"""Any two measured quantities against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotune.finished import FinishedRun, read_run
from autotune.report.pareto_plot import hover, pareto_figure
from tests import finished_runs, reports


def run(folder: Path, **changes: Any) -> FinishedRun:
    return read_run(finished_runs.write(folder / "run", **changes))


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
