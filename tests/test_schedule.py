"""What to do next: pure functions."""

from __future__ import annotations

from autotune.schedule import (
    Budget,
    Spent,
    ask_seed,
    first_points,
    may_train,
    missing_pairs,
    proposal_values,
    same_failure,
    spent_up,
)
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
