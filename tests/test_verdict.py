"""The answer of a run, as a headline and sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotune.finished import read_run
from autotune.report.verdict import Answer, answer
from tests import finished_runs, reports


def answered(folder: Path, **changes: Any) -> Answer:
    return answer(read_run(finished_runs.write(folder / "run", **changes)))


def test_a_certificate_speaks_first_and_of_the_chosen_one_before_others(tmp_path: Path) -> None:
    found = answered(tmp_path, **reports.certified())
    assert found == Answer("PASS", "int4-b32 meets every limit",
                           ("Certified: trial 0 (int4-b32).", "Passed over: trial 2 (int8-b32)."), 0)


def test_without_a_certificate_the_search_speaks_and_claims_no_verdict(tmp_path: Path) -> None:
    found = answered(tmp_path)
    assert (found.verdict, found.trial) == ("", 2)
    assert found.headline == "int8-b32 is chosen; nothing was certified"
    assert found.sentences == (
        "Chosen: trial 2, int8-b32 (most-accurate of 2 on the front): accuracy 0.750, latency_ms.p50 280 ms, size_mb "
        "340 MB and meets accuracy >= 0.6 and latency_ms.p95 <= 600.",)


def test_what_is_not_settled_keeps_what_would_settle_it(tmp_path: Path) -> None:
    open_ = reports.certificate("INCONCLUSIVE", 2, reports.look(2, "INCONCLUSIVE"), text=(
        "Not settled: trial 2.", "  accuracy >= 0.6: About 900 test rows would settle it."))
    found = answered(tmp_path, certificate=open_, selected={"trial": 2, "policy": "knee", "certificate": open_})
    assert found.headline == "Not settled whether int8-b32 meets the limits"
    assert found.sentences[1] == "accuracy >= 0.6: About 900 test rows would settle it."


def test_a_certificate_that_nothing_passed_points_to_the_nearest(tmp_path: Path) -> None:
    failed = reports.certificate("FAIL", None, reports.look(2, "FAIL"))
    found = answered(tmp_path, certificate=failed, selected=None, nearest_miss={
        "trial": 2, "expr": "accuracy >= 0.6", "shortfall": 0.02, "unit": ""})
    assert (found.verdict, found.headline, found.trial) == ("FAIL", "Measured again, nothing meets the limits", 2)


def test_the_nearest_miss_is_named_with_its_distance(tmp_path: Path) -> None:
    found = answered(tmp_path, **reports.missed())
    assert (found.headline, found.trial) == ("Nothing meets the limits", 1)
    assert found.sentences == ("Nothing meets the limits. Nearest: trial 1, int8-b32, misses accuracy >= 0.6 by 0.1 "
                               "(17%); accuracy was 0.5.",)


def test_dropped_points_are_named_although_there_is_no_trial(tmp_path: Path) -> None:
    found = answered(tmp_path, **reports.hopeless())
    assert (found.headline, found.trial) == ("No artifact can meet the limits", None)
    assert "Nearest: int4-b32, which misses latency_ms.p95 <= 600 by 100 ms (17%)" in found.sentences[0]


@pytest.mark.parametrize("trials", [[], [finished_runs.trial(
    0, "int4", 8, 0.5, 180, 210, state="FAILED", feasible=None, verdicts={}, values={}, reason="train: nan")]])
def test_without_a_complete_trial_nothing_is_claimed(tmp_path: Path, trials: list[dict[str, Any]]) -> None:
    found = answered(tmp_path, trials=trials, front=[], selected=None)
    assert (found.verdict, found.headline, found.trial) == ("FAIL", "No trial was completed", None)
