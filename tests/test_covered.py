"""How much of the ground fronts cover."""

from __future__ import annotations

import pytest

from autotune.comparing.covered import Covered, covered
from autotune.constraints import Constraint, parse
from autotune.finished import FinishedTrial
from autotune.pareto import Direction

OBJECTIVES: list[tuple[str, Direction]] = [("accuracy", "maximize"), ("size_mb", "minimize")]


def trial(number: int, accuracy: float, size: float) -> FinishedTrial:
    from autotune.stats import exact

    return FinishedTrial(number, "COMPLETE", {}, "int4-b32", {"accuracy": exact(accuracy), "size_mb": exact(size)},
                         True, {}, None, True, None, None)


def cover(*fronts: list[FinishedTrial], limits: list[list[Constraint]] | None = None) -> Covered:
    return covered(fronts, OBJECTIVES, limits or [[] for _ in fronts])


def test_shared_limits_are_the_reference_and_volumes_are_shares_of_its_box() -> None:
    limits = [parse("accuracy >= 0.5"), parse("size_mb <= 500")]
    found = cover([trial(0, 0.9, 300)], [trial(0, 0.7, 100)], limits=[limits, limits])
    assert [(r.key, r.value, r.of) for r in found.reference] == [("accuracy", 0.5, "limit"), ("size_mb", 500, "limit")]
    # The box is 0.4 by 400.
    assert found.volumes == (pytest.approx(0.5), pytest.approx(0.5))
    assert found.together == pytest.approx(0.5 + 0.5 - 0.25)


def test_limits_that_differ_give_way_to_a_tenth_beyond_the_worst() -> None:
    found = cover([trial(0, 0.9, 300)], [trial(0, 0.7, 100)],
                  limits=[[parse("size_mb <= 500")], [parse("size_mb <= 400")]])
    assert [(r.value, r.of) for r in found.reference] == [(pytest.approx(0.68), "worst"), (pytest.approx(320), "worst")]
    assert found.volumes == (pytest.approx(1 / 11), pytest.approx(1 / 11))


def test_units_do_not_matter() -> None:
    fronts = ([trial(0, 0.9, 300), trial(1, 0.8, 200)], [trial(0, 0.7, 100)])
    larger = tuple([trial(t.number, t.values["accuracy"].value, t.values["size_mb"].value * 1e6) for t in front]
                   for front in fronts)
    assert cover(*larger).volumes == pytest.approx(cover(*fronts).volumes)


def test_who_dominates_whom() -> None:
    mine, others = [trial(4, 0.9, 300), trial(5, 0.6, 100)], [trial(6, 0.9, 300), trial(7, 0.5, 100)]
    found = cover(mine, others)
    assert found.dominated == ((), (7,))
    assert found.coverage[0][1] == 1.0  # an equal trial is covered, not dominated
    assert found.coverage[1][0] == 0.5


def test_an_empty_front_covers_nothing_and_an_objective_without_a_range_is_no_axis() -> None:
    found = cover([trial(0, 0.9, 300), trial(1, 0.9, 300)], [])
    assert found.volumes == (1.0, 0.0)
    assert found.coverage[0][1] is None
    assert cover([], []).reference == ()
