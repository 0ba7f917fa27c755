"""The hypervolume over known costs: equal to the general one, and what a pair is expected to add to it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from autotune.constraints import parse
from autotune.pareto import Direction, hypervolume
from autotune.search.volume import volume

OBJECTIVES: list[tuple[str, Direction]] = [("accuracy", "maximize"), ("ms", "minimize"), ("mb", "minimize")]
LIMITS = [parse("accuracy >= 0.5"), parse("ms <= 10"), parse("mb <= 100")]
POINTS = {"a": {"ms": 2.0, "mb": 80.0}, "b": {"ms": 5.0, "mb": 40.0}, "c": {"ms": 5.0, "mb": 90.0},
          "slow": {"ms": 12.0, "mb": 20.0}}


def test_it_is_the_general_hypervolume_in_shares_of_the_box_of_costs() -> None:
    space = volume(POINTS, OBJECTIVES, LIMITS, "accuracy")
    box = (10 - 2) * (100 - 40)
    rng = np.random.default_rng(0)
    for _ in range(50):
        best = np.where(rng.random(4) < 0.3, -np.inf, rng.uniform(0.3, 0.9, 4))
        points = [(-v, *POINTS[p].values()) for v, p in zip(best, POINTS, strict=True) if np.isfinite(v)]
        assert float(space.of(best)) * box == pytest.approx(hypervolume(points, (-0.5, 10.0, 100.0)))


def test_a_point_beyond_a_limit_on_what_is_known_adds_nothing() -> None:
    space = volume(POINTS, OBJECTIVES, LIMITS, "accuracy")
    assert list(space.allowed) == [True, True, True, False]
    assert space.gain(np.full(4, -np.inf), np.array([np.nan, np.nan, np.nan, 0.9]), np.zeros(4)) == 0


def test_a_limit_on_something_that_is_no_objective_rules_points_out_too() -> None:
    points = {p: {**v, "peak": 100.0 * i} for i, (p, v) in enumerate(POINTS.items())}
    space = volume(points, OBJECTIVES, [*LIMITS, parse("peak <= 50")], "accuracy")
    assert list(space.allowed) == [True, False, False, False]


def test_the_expected_gain_is_the_mean_over_what_is_uncertain() -> None:
    space = volume(POINTS, OBJECTIVES, LIMITS, "accuracy")
    best = np.array([0.7, -np.inf, -np.inf, -np.inf])
    certain = space.gain(best, np.array([0.75, np.nan, np.nan, np.nan]), np.zeros(4))
    assert certain == pytest.approx(float(space.of(np.array([0.75, *[-np.inf] * 3])) - space.of(best)))
    assert space.gain(best, np.array([0.65, np.nan, np.nan, np.nan]), np.zeros(4)) == 0
    drawn = np.random.default_rng(0).normal(0.65, 0.05, 20_000)
    rows = np.stack([drawn, *[np.full(len(drawn), -np.inf)] * 3], axis=1)
    plain = float(np.mean(space.of(np.maximum(best, rows)) - space.of(best)))
    assert space.gain(best, np.array([0.65, np.nan, np.nan, np.nan]), np.full(4, 0.05)) == pytest.approx(plain, rel=0.1)


def test_what_a_pair_has_to_beat_is_the_best_of_what_costs_no_more() -> None:
    space = volume(POINTS, OBJECTIVES, LIMITS, "accuracy")
    assert list(space.beaten(np.array([0.6, 0.7, -np.inf, 0.9]))) == [0.6, 0.7, 0.7, 0.9]


@pytest.mark.parametrize("objectives", [[("accuracy", "maximize")], [("ms", "minimize")], OBJECTIVES[:2]])
def test_other_sets_of_objectives_work_without_limits(objectives: list[tuple[str, Direction]]) -> None:
    space = volume(POINTS, objectives, [], "accuracy")
    some, more = np.array([0.6, 0.5, 0.4, 0.3]), np.array([0.7, 0.7, 0.7, 0.7])
    assert 0 < float(space.of(some)) <= float(space.of(more))


def test_accuracy_that_is_only_limited_counts_by_being_enough() -> None:
    space = volume(POINTS, OBJECTIVES[1:], LIMITS, "accuracy")
    values = [float(space.of(np.array([v, -np.inf, -np.inf, -np.inf]))) for v in (0.4, 0.5, 0.9)]
    assert values[0] == 0 < values[1] == values[2]


def test_less_may_be_better() -> None:
    objectives: list[tuple[str, Direction]] = [("error", "minimize"), ("ms", "minimize")]
    space = volume(POINTS, objectives, [parse("error <= 0.4")], "error")
    assert space.sign == -1
    heights = [float(space.of(np.array([-e, -np.inf, -np.inf, -np.inf]))) for e in (0.1, 0.3, 0.5)]
    assert heights[0] > heights[1] > heights[2] == 0
    assert all(itertools.starmap(float.__ge__, itertools.pairwise(heights)))


@pytest.mark.parametrize("mean", [0.65, 0.6, 0.58])
def test_a_small_chance_counts_as_much_as_it_should(mean: float) -> None:
    """0.7 is one, two and 2.4 standard deviations away."""
    space = volume(POINTS, OBJECTIVES, LIMITS, "accuracy")
    best = np.array([0.7, -np.inf, -np.inf, -np.inf])
    drawn = mean + 0.05 * np.random.default_rng(0).standard_normal(400_000)
    exact = float(np.maximum(drawn - 0.7, 0).mean() * space.weights[space.covers[:, 0]].sum())
    found = space.gain(best, np.array([mean, np.nan, np.nan, np.nan]), np.full(4, 0.05))
    assert found == pytest.approx(exact, rel=0.1 if mean > 0.58 else 0.4)
    assert found > 0


def test_no_share_above_one_is_expected() -> None:
    space = volume(POINTS, OBJECTIVES, LIMITS, "accuracy")
    perfect = np.array([1.0, -np.inf, -np.inf, -np.inf])
    assert space.gain(perfect, np.array([0.99, np.nan, np.nan, np.nan]), np.full(4, 0.05)) == 0


def test_where_another_objective_is_still_to_be_measured_no_point_is_beaten() -> None:
    """The cheaper point's latency is not known to be as low."""
    sizes = {p: {"mb": v["mb"]} for p, v in POINTS.items()}
    space = volume(sizes, OBJECTIVES, LIMITS, "accuracy")
    assert not np.isfinite(space.beaten(np.array([0.9, 0.9, 0.9, 0.9]))).any()


def test_a_metric_of_any_scale_is_held_against_the_worst_that_was_seen() -> None:
    objectives: list[tuple[str, Direction]] = [("perplexity", "minimize"), ("ms", "minimize")]
    space = volume(POINTS, objectives, [], "perplexity", seen=[3.2, 5.0])
    worse, better = (float(space.of(np.array([-v, -np.inf, -np.inf, -np.inf]))) for v in (5.0, 3.2))
    assert 0 < worse < better
