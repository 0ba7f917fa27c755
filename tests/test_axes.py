"""The axes of a plot of two measured quantities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotune import pareto
from autotune.finished import FinishedRun, read_run
from autotune.report.axes import axes, box, staircase
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


@pytest.mark.parametrize("keys", [("latency_ms.p50", "accuracy"), ("accuracy", "size_mb"),
                                  ("size_mb", "latency_ms.p50"), ("accuracy", "macro_f1")])
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
    limit = {"expr": "size_mb <= 9000", "objective": "size_mb", "op": "<=", "unit": "MB", "bound": 9000.0}
    far = run(tmp_path / "far", constraints=[{**limit, "baseline": None}])
    assert {a.key: a for a in axes(far, 2)}["size_mb"].shown[1] < 700
