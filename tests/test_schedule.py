"""What to do next: pure functions."""

from __future__ import annotations

import pytest

from autotune.constraints import parse
from autotune.search.schedule import (
    Budget,
    Spent,
    adapter_objectives,
    ask_seed,
    first_points,
    may_train,
    missing_pairs,
    needed_right,
    proposal_values,
    same_failure,
    scoring_order,
    spent_up,
)
from objectives import base
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams
from search_spaces.space import parse_space

ADAPTER = AdapterParams(8, 16, 1e-4)
INT8, INT4, FP16 = DeployParams("int8"), DeployParams("int4"), DeployParams("fp16")


def test_an_adapter_that_was_begun_is_finished_within_the_budget_of_adapters() -> None:
    budget = Budget(adapters=2, trials=None, time_s=None)
    assert spent_up(budget, Spent(2, 3, 0)) is None
    assert "2 adapters" in (may_train(budget, Spent(2, 3, 0)) or "")
    assert may_train(budget, Spent(1, 3, 0)) is None


def test_trials_and_time_end_everything() -> None:
    assert "5 trials" in (spent_up(Budget(None, 5, None), Spent(1, 5, 0)) or "")
    assert "60 s" in (spent_up(Budget(None, None, 60), Spent(1, 1, 61)) or "")
    assert spent_up(Budget(9, 9, 99), Spent(0, 0, 0)) is None


def test_expert_points_are_inside_the_space_and_distinct() -> None:
    space, _ = parse_space({"adapter": {"rank": [4, 8], "learning_rate": {"low": 1e-4, "high": 4e-4}},
                            "deploy": [{"precision": "int8"}]})
    assert space is not None
    points = first_points(space)
    assert len(points) == len({tuple(sorted(p.items())) for p in points}) >= 2
    for point in points:
        assert point["rank"] in (4, 8)
        assert 1e-4 <= float(point["learning_rate"]) <= 4e-4


def test_seeds_depend_on_the_study_and_the_number_alone() -> None:
    assert ask_seed(0, 3) == ask_seed(0, 3)
    assert len({ask_seed(s, n) for s in range(4) for n in range(50)}) == 200


def test_measured_pairs_are_not_measured_again() -> None:
    assert missing_pairs(ADAPTER, (FP16, INT8, INT4), {(ADAPTER, INT8)}) == [FP16, INT4]


def test_an_adapter_is_judged_at_its_largest_and_smallest_artifact() -> None:
    by_point = {INT4: {"accuracy": 0.7, "size_mb": 200.0}, FP16: {"accuracy": 0.8, "size_mb": 570.0},
                INT8: {"accuracy": 0.9, "size_mb": 340.0}}
    assert proposal_values(by_point, ["accuracy"]) == [0.8, 0.7]


def test_failures_are_alike_whatever_their_numbers_and_paths() -> None:
    assert same_failure(("train", "loss nan at step 12"), ("train", "loss nan at step 7"))
    assert same_failure(("probe", "no file /a/b"), ("probe", "no file /c/d"))
    assert not same_failure(("train", "x"), ("probe", "x"))
    assert not same_failure(("train", "out of memory"), ("train", "loss nan"))


OBJECTIVES = [("accuracy", "maximize"), ("latency_ms.p50", "minimize"), ("size_mb", "minimize")]
LIMITS = (parse("accuracy >= 0.5"), parse("latency_ms.p50 <= 100"))


def trial(accuracy: float, latency: float, size: float) -> dict[str, float]:
    return {"accuracy": accuracy, "latency_ms.p50": latency, "size_mb": size}


def needed(known: dict[str, float], *complete: dict[str, float]) -> int | None:
    return needed_right(100, known, complete, OBJECTIVES, LIMITS)


def test_while_nothing_meets_the_limits_no_trial_may_be_stopped() -> None:
    known = {"latency_ms.p50": 50.0, "size_mb": 10.0}
    assert needed(known) is None
    assert needed(known, trial(0.4, 50, 10)) is None
    assert needed(known, trial(0.9, 150, 10)) is None


def test_a_trial_must_reach_the_limit_and_what_is_no_slower_and_no_larger() -> None:
    known = {"latency_ms.p50": 50.0, "size_mb": 10.0}
    assert needed(known, trial(0.9, 60, 10)) == 50  # slower: only the limit counts
    assert needed(known, trial(0.8, 50, 10)) == 80  # as cheap: an equal share stands beside it on the front
    assert needed(known, trial(0.8, 40, 10)) == 81  # cheaper: an equal share is dominated
    assert needed(known, trial(0.8, 50, 10), trial(0.9, 40, 9)) == 91
    assert needed(known, trial(0.3, 40, 9), trial(0.6, 70, 9)) == 50  # the first misses the limit, so it rules nothing


def test_what_is_still_to_be_measured_forbids_stopping() -> None:
    assert needed({"size_mb": 10.0}, trial(0.8, 40, 10)) is None
    assert needed_right(100, {"size_mb": 1.0}, [{"macro_f1": 0.5, "size_mb": 1.0}],
                        [("macro_f1", "maximize"), ("size_mb", "minimize")], ()) is None


def test_cheapest_evidence_comes_first_and_ties_have_an_order() -> None:
    assert scoring_order([FP16, INT8, INT4], {FP16: 30.0, INT8: 9.0, INT4: 9.0}) == [INT4, INT8, FP16]


@pytest.mark.parametrize(("asked", "limited", "from_rows", "found"), [
    (["latency_ms.p50", "exact_match", "size_mb"], [], True, ["exact_match", "latency_ms.p50"]),
    (["latency_ms.p50", "size_mb"], ["exact_match"], True, ["exact_match", "latency_ms.p50"]),
    (["latency_ms.p50", "macro_f1"], ["accuracy"], False, ["macro_f1"]),
    (["latency_ms.p50", "size_mb"], [], False, ["accuracy"]),
])
def test_what_answers_decide_comes_first_and_times_only_where_they_are_the_adapters(
    asked: list[str], limited: list[str], from_rows: bool, found: list[str]
) -> None:
    measured = {key: base.parse_key(key)[0] for key in (*limited, *asked)}
    assert adapter_objectives([(key, base.parse_key(key)[0]) for key in asked], measured, from_rows, "choice") == found
