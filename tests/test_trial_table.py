"""The table of trials."""

from __future__ import annotations

from pathlib import Path

from autotune.finished import read_run
from autotune.report.trial_table import trial_table
from tests import finished_runs, reports


def test_a_column_for_what_was_asked_and_what_was_varied(tmp_path: Path) -> None:
    columns, rows = trial_table(read_run(finished_runs.write(tmp_path / "run")), 2)
    assert [c.title for c in columns if not c.more] == [
        "trial", "what came of it", "artifact", "accuracy", "latency_ms.p50", "size_mb", "latency_ms.p95", "rank"]
    assert {c.title for c in columns if c.more} == {"macro_f1", "ttft_ms.p50", "peak_rss_mb"}
    assert {len(row.cells) for row in rows} == {len(columns)}


def test_a_number_has_its_interval_its_n_and_its_verdicts(tmp_path: Path) -> None:
    columns, rows = trial_table(read_run(finished_runs.write(tmp_path / "run")), 2)
    cells = dict(zip([c.title for c in columns], rows[2].cells, strict=True))
    assert (cells["accuracy"].text, cells["accuracy"].note) == ("0.750", "[0.690, 0.810], n 128")
    assert cells["accuracy"].verdicts == (("accuracy >= 0.6", "PASS"),)
    assert (cells["latency_ms.p95"].text, cells["latency_ms.p95"].note) == ("308", "[300, …], n 20")
    assert cells["size_mb"].note == "exact"
    assert cells["peak_rss_mb"].note == "one reading"


def test_each_row_says_what_came_of_it(tmp_path: Path) -> None:
    failed = finished_runs.trial(4, "int4", 4, 0, 0, 0, state="FAILED", feasible=None, verdicts={}, values={},
                                 reason="train: the loss is nan")
    stopped = finished_runs.trial(5, "int4", 4, 0.4, 180, 210, state="PRUNED", feasible=None, verdicts={},
                                  reason="answers: stopped after 48 of 128 rows")
    trials = [*finished_runs.document()["trials"], failed, stopped]
    _, rows = trial_table(read_run(finished_runs.write(tmp_path / "run", trials=trials)), 2)
    assert [row.cells[1].text for row in rows] == [
        "on the front", "meets the limits", "chosen", "misses a limit", "failed", "stopped early"]
    assert rows[2].cells[1].note == "tied with trial 0"
    assert rows[4].cells[1].note == "train: the loss is nan"
    assert rows[4].cells[3].key is None
    assert [row.feasible for row in rows] == ["yes", "yes", "yes", "no", "", ""]


def test_the_nearest_miss_is_not_called_chosen(tmp_path: Path) -> None:
    _, rows = trial_table(read_run(finished_runs.write(tmp_path / "run", **reports.missed())), 1)
    assert rows[1].cells[1].text == "nearest to the limits"
