"""Parallel coordinates."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.finished import read_run
from autotune.report.parallel_plot import dimensions, parallel_figure
from tests import finished_runs, reports


def test_what_was_varied_then_the_objectives(tmp_path: Path) -> None:
    run = read_run(finished_runs.write(tmp_path / "run"))
    found = dimensions(run, run.trials)
    assert [d.title for d in found] == ["rank", "precision", "accuracy", "latency_ms.p50 (ms)", "size_mb (MB)"]
    rank = found[0]
    assert [text for _, text in rank.ticks] == ["4", "8", "16"]
    heights = dict(zip([t.params["rank"] for t in run.trials], rank.places, strict=True))
    assert heights[4] < heights[8] < heights[16]  # type: ignore[operator]


def test_lines_through_one_step_do_not_lie_on_each_other(tmp_path: Path) -> None:
    run = read_run(finished_runs.write(tmp_path / "run", **reports.many(100)))
    trials = [t for t in run.trials if t.params["rank"] == 8]
    rank = next(d for d in dimensions(run, run.trials) if d.title == "rank")
    places = {rank.places[t.number] for t in trials}
    assert len(places) == len(trials)
    assert max(places) - min(places) < 0.15  # type: ignore[type-var, operator]


def test_a_wide_range_is_logarithmic(tmp_path: Path) -> None:
    run = read_run(finished_runs.write(tmp_path / "run", **reports.many(100)))
    rate = next(d for d in dimensions(run, run.trials) if d.title == "learning_rate")
    low, middle, high = (float(text) for _, text in rate.ticks)
    assert middle == pytest.approx((low * high) ** 0.5, rel=0.02)


def test_a_group_is_one_trace_with_gaps_and_hostile_text_is_plain(tmp_path: Path) -> None:
    trials = finished_runs.document()["trials"]
    trials[1]["params"]["targets"] = trials[1]["deploy_point"] = reports.HOSTILE
    figure = parallel_figure(read_run(finished_runs.write(tmp_path / "run", trials=trials)), 2)
    assert figure is not None
    assert [t.meta["group"] for t in figure.data[:-1]] == ["infeasible", "feasible", "front", "chosen"]
    assert list(figure.data[0].y)[-1] is None
    assert "<img" not in str(figure.to_json())


def test_a_value_that_a_trial_lacks_is_a_gap(tmp_path: Path) -> None:
    trials = finished_runs.document()["trials"]
    trials[3] |= {"state": "PRUNED", "feasible": None, "verdicts": {}, "reason": "answers: stopped"}
    del trials[3]["values"]["accuracy"]
    run = read_run(finished_runs.write(tmp_path / "run", trials=trials))
    accuracy = next(d for d in dimensions(run, run.trials) if d.title == "accuracy")
    assert (accuracy.places[3], accuracy.texts[3]) == (None, "–")


def test_one_trial_has_nothing_to_compare(tmp_path: Path) -> None:
    trial = finished_runs.trial(0, "int4", 8, 0.7, 180, 210)
    run = read_run(finished_runs.write(tmp_path / "run", trials=[trial], front=[], selected=None))
    assert parallel_figure(run, None) is None


def test_a_long_name_is_folded_and_its_unit_stands_below(tmp_path: Path) -> None:
    figure = parallel_figure(read_run(finished_runs.write(tmp_path / "run")), 2)
    assert figure is not None
    titles = [a.text for a in figure.layout.annotations if a.text.startswith("<b>")]
    assert titles == ["<b>rank</b>", "<b>precision</b>", "<b>accuracy</b>", "<b>latency_<br>ms.p50<br>(ms)</b>",
                      "<b>size_mb<br>(MB)</b>"]
