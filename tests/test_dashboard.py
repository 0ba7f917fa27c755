"""What a person reads of a study as a whole in optuna-dashboard."""

from __future__ import annotations

from typing import Any

from autotune.report.dashboard import proposal_words, visible_words
from autotune.study_file import StudyFile
from tests import studies
from tests.finished_runs import document, value


def study(**changes: Any) -> StudyFile:
    return StudyFile.model_validate({**studies.study(), "name": "tone", **changes})


def test_the_study_tells_model_target_front_and_outcome() -> None:
    words = visible_words(study(), document())
    assert words["model"] == "model"
    assert words["target"] == "cpu, 1 thread; 12 prompt and 3 new tokens"
    assert words["limits"] == "accuracy >= 0.6; latency_ms.p95 <= 600"
    assert words["baseline"] == "not measured"
    assert words["front"] == "trial 0 and trial 2 (tied with 0)"
    assert words["outcome"].startswith("Chosen: trial 2, int8-b32")
    assert "tone/proposals" in words["about"]


def test_a_relative_limit_comes_with_its_number_and_the_baseline_with_its_intervals() -> None:
    limit = {"expr": "latency_ms.p50 <= 0.5 * baseline", "objective": "latency_ms.p50", "op": "<=", "unit": "ms",
             "bound": 251.25, "baseline": 502.5}
    base = {"deploy_point": "fp32", "logits": {}, "values": {"accuracy": value(0.305, 0.07, 128), "x": value(1)}}
    words = visible_words(study(), document(constraints=[limit], baseline=base))
    assert words["limits"] == "latency_ms.p50 <= 0.5 * baseline (251 ms)"
    assert words["baseline"] == "untrained base at fp32: accuracy 0.305 [0.235, 0.375] (n = 128)"


def test_nothing_yet_is_said_in_words() -> None:
    target = {"provider": "cpu", "threads": 2, "workload": {"from": "valid"}}
    words = visible_words(study(target=target), document(
        trials=[], front=[], selected=None, constraints=[], nearest_miss=None))
    assert words["target"] == "cpu, 2 threads; the validation rows' own prompts"
    assert (words["limits"], words["front"]) == ("none", "no trial")
    assert "nothing to choose" in words["outcome"]


def test_the_proposal_study_says_what_its_trials_are() -> None:
    assert "A trial is an adapter" in proposal_words(study())["about"]
    assert "choose from are in tone" in proposal_words(study())["about"]
