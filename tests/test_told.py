"""What a results.json came to: the exit code and the sentence, whatever it holds."""

from __future__ import annotations

from typing import Any

import pytest

from autotune.report.told import exit_code, headline, outcome
from tests.finished_runs import document, trial

POINT = {"label": "int8-b32", "deploy": {}, "reason": "size_mb is 340", "values": {}}


def certificate(verdict: str, *text: str) -> dict[str, Any]:
    return {"verdict": verdict, "text": list(text)}


@pytest.mark.parametrize(("changes", "code"), [
    ({}, 0),
    ({"certificate": certificate("PASS", "Certified: trial 2.")}, 0),
    ({"certificate": certificate("INCONCLUSIVE", "Not settled: trial 2.")}, 4),
    ({"certificate": certificate("FAIL", "Nothing is certified."), "selected": None}, 3),
    ({"selected": None, "front": []}, 3),
    ({"selected": None, "front": [], "trials": [trial(0, "int4", 8, 0, 1, 1, state="FAILED", values={})]}, 1),
    ({"selected": None, "front": [], "trials": []}, 1),  # the time was up before the first trial
    ({"selected": None, "front": [], "trials": [], "dropped": [POINT]}, 3),
])
def test_exit_codes(changes: dict[str, Any], code: int) -> None:
    assert exit_code(document(**changes)) == code


def test_the_choice_is_told_with_its_objectives_and_limits() -> None:
    assert outcome(document()) == (
        "Chosen: trial 2, int8-b32 (most-accurate of 2 on the front): accuracy 0.750, latency_ms.p50 280 ms, "
        "size_mb 340 MB and meets accuracy >= 0.6 and latency_ms.p95 <= 600.")


def test_the_certificates_own_words_are_told_and_the_headline_skips_those_passed_over() -> None:
    found = document(certificate=certificate("PASS", "Passed over: trial 2.", "Certified: trial 0."))
    assert outcome(found) == "Passed over: trial 2. Certified: trial 0."
    assert headline(found) == "Certified: trial 0."
    open_ = document(certificate=certificate("INCONCLUSIVE", "Not settled: trial 2.", "  size_mb <= 3: near."))
    assert outcome(open_) == "Not settled: trial 2. size_mb <= 3: near."
    assert headline(open_) == "Not settled: trial 2."


def test_the_nearest_miss_is_a_trials_or_a_deploy_points() -> None:
    miss = {"trial": 3, "expr": "accuracy >= 0.6", "shortfall": 0.1, "unit": ""}
    found = {"selected": None, "front": [], "nearest_miss": miss}
    assert outcome(document(**found)) == (
        "Nothing meets the limits. Nearest: trial 3, int4-b32, misses accuracy >= 0.6 "
        "by 0.1 (17%); accuracy was 0.5.")
    point = {**miss, "trial": None, "deploy_point": "int8-b32", "expr": "latency_ms.p95 <= 600", "shortfall": 60,
             "unit": "ms"}
    nowhere = document(**{**found, "nearest_miss": point, "trials": [], "dropped": [POINT]})
    assert outcome(nowhere) == ("Nothing can meet the limits, whatever the adapter, so nothing was trained. Nearest: "
                                "int8-b32, which misses latency_ms.p95 <= 600 by 60 ms (10%) on the base model.")
    assert "No deploy point can meet" in outcome({**nowhere, "nearest_miss": None})
