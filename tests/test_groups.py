"""How trials fall into groups."""

from __future__ import annotations

from pathlib import Path

from autotune.finished import read_run
from autotune.report.groups import GROUPS, grouped
from tests import finished_runs, reports


def test_every_trial_with_a_value_is_in_one_group(tmp_path: Path) -> None:
    run = read_run(finished_runs.write(tmp_path / "run", **reports.many(100)))
    groups = grouped(run, run.selected)
    assert list(groups) == [g.name for g in GROUPS]
    assert sorted(t.number for trials in groups.values() for t in trials) == [
        t.number for t in run.trials if t.values]
    assert [t.number for t in groups["chosen"]] == [run.selected]
    assert {t.number for t in groups["front"]} == set(run.front) - {run.selected}
    assert all(t.state == "PRUNED" for t in groups["stopped"])
    assert not any(t.feasible for t in groups["infeasible"])
