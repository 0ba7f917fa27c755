"""Fronts, policies, and how near a miss is."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.constraints import parse
from autotune.pareto import Candidate, coverage, front, goes_by, hypervolume, nearest_miss, rank, select

OBJECTIVES = [("accuracy", "maximize"), ("latency_ms", "minimize"), ("size_mb", "minimize")]


def trial(number: int, accuracy: float, latency: float, size: float) -> Candidate:
    return Candidate(number, {"accuracy": accuracy, "latency_ms": latency, "size_mb": size})


GOOD, QUICK = trial(0, 0.9, 100, 500), trial(1, 0.8, 40, 400)
SMALL, WORSE = trial(2, 0.7, 60, 100), trial(3, 0.8, 50, 400)
ALL = [GOOD, QUICK, SMALL, WORSE]


def test_dominated_and_infeasible_trials_are_off_the_front() -> None:
    assert front(ALL, OBJECTIVES, []) == [0, 1, 2]
    assert front(ALL, OBJECTIVES, [parse("size_mb <= 450")]) == [1, 2]
    assert front(ALL, OBJECTIVES, [parse("accuracy >= 0.95")]) == []


def test_equal_trials_both_stay() -> None:
    assert front([GOOD, trial(9, 0.9, 100, 500)], OBJECTIVES, []) == [0, 9]


@pytest.mark.parametrize(("policy", "chosen"), [("most-accurate", 0), ("fastest", 1), ("smallest", 2)])
def test_policies(policy: str, chosen: int) -> None:
    assert select([GOOD, QUICK, SMALL], OBJECTIVES, policy) == chosen


def test_the_knee_is_the_balanced_one() -> None:
    corners = [trial(0, 1.0, 100, 100), trial(1, 0.5, 0, 50), trial(2, 0.9, 20, 55)]
    assert select(corners, OBJECTIVES, "knee") == 2


def test_ties_go_to_the_quicker_one() -> None:
    assert select([trial(0, 0.9, 100, 5), trial(1, 0.9, 90, 5)], OBJECTIVES, "most-accurate") == 1


def test_nothing_is_selected_of_nothing() -> None:
    assert select([], OBJECTIVES, "knee") is None


def test_the_nearest_miss_says_which_limit_and_by_how_much() -> None:
    miss = nearest_miss(ALL, [parse("accuracy >= 0.85"), parse("latency_ms <= 80")])
    assert miss is not None
    assert (miss.trial, miss.expr) == (1, "accuracy >= 0.85")
    assert miss.shortfall == pytest.approx(0.05)


def test_a_candidate_without_the_limited_number_is_an_error_not_a_pass() -> None:
    with pytest.raises(KeyError):
        front([Candidate(0, {"accuracy": 1.0})], [("accuracy", "maximize")], [parse("size_mb <= 1")])


def test_a_metric_of_ones_own_is_accuracy_like_whatever_its_direction() -> None:
    slow_right = Candidate(0, {"m:wer": 0.1, "latency_ms": 90})
    quick_wrong = Candidate(1, {"m:wer": 0.5, "latency_ms": 9})
    objectives = [("latency_ms", "minimize"), ("m:wer", "minimize")]
    assert select([slow_right, quick_wrong], objectives, "most-accurate") == 0


def test_a_policy_ranks_the_whole_front_and_its_pick_comes_first() -> None:
    candidates = [Candidate(i, {"accuracy": a, "latency_ms.p50": t}) for i, (a, t) in
                  enumerate(((0.7, 10.0), (0.9, 40.0), (0.8, 20.0)))]
    signed = [("accuracy", "maximize"), ("latency_ms.p50", "minimize")]
    assert rank(candidates, signed, "most-accurate") == [1, 2, 0]
    assert rank(candidates, signed, "fastest") == [0, 2, 1]
    assert rank(candidates, signed, "knee")[0] == select(candidates, signed, "knee")
    assert rank([], signed, "knee") == []


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_hypervolume_is_what_a_count_of_cells_gives(objectives: int) -> None:
    draw = np.random.default_rng(objectives)
    cells = 9
    for _ in range(20):
        points = draw.integers(0, cells + 2, (int(draw.integers(1, 9)), objectives))  # some beyond the reference
        centres = np.stack(np.meshgrid(*[np.arange(cells) + 0.5] * objectives), axis=-1).reshape(-1, objectives)
        dominated = (points[None] <= centres[:, None]).all(axis=-1).any(axis=-1).sum()
        assert hypervolume(points.tolist(), [cells] * objectives) == pytest.approx(dominated)


def test_the_hypervolume_does_not_depend_on_the_order_or_on_what_is_dominated() -> None:
    points = [(1.0, 4.0), (2.0, 2.0), (4.0, 1.0)]
    assert hypervolume(points, (5, 5)) == pytest.approx(4 + 3 * 2 + 1)
    assert hypervolume([*points[::-1], (3.0, 3.0), (2.0, 2.0)], (5, 5)) == pytest.approx(11)
    assert hypervolume([], (5, 5)) == 0.0
    assert hypervolume([(5.0, 0.0)], (5, 5)) == 0.0


def test_coverage_counts_equal_points_too_and_is_not_symmetric() -> None:
    mine, others = [(1.0, 4.0), (2.0, 2.0)], [(2.0, 2.0), (3.0, 3.0), (0.5, 9.0)]
    assert coverage(mine, others) == pytest.approx(2 / 3)
    assert coverage(others, mine) == 0.5
    assert coverage(mine, []) is None
    assert coverage([], mine) == 0.0


def test_a_policy_names_the_objectives_that_it_goes_by() -> None:
    assert goes_by("fastest", "tokens_per_s.p50")
    assert goes_by("fastest", "load_ms")
    assert not goes_by("fastest", "size_mb")
    assert not goes_by("smallest", "peak_rss_mb")
    assert goes_by("most-accurate", "mine:score")
    assert goes_by("knee", "size_mb")
