"""Which front is the best over which budgets."""

from __future__ import annotations

from autotune.comparing.stretches import Stretch, stretches
from autotune.finished import FinishedTrial
from autotune.stats import exact


def trial(number: int, accuracy: float, cost: float) -> FinishedTrial:
    values = {"accuracy": exact(accuracy), "size_mb": exact(cost), "tokens_per_s": exact(cost)}
    return FinishedTrial(number, "COMPLETE", {}, "int4-b32", values, True, {}, None, True, None, None)


def along(*fronts: list[FinishedTrial], margin: float = 0.0) -> tuple[Stretch, ...]:
    return stretches(fronts, ("accuracy", "maximize"), ("size_mb", "minimize"), lambda i, a, j, b: abs(
        a.values["accuracy"].value - b.values["accuracy"].value) > margin)


def told(found: tuple[Stretch, ...]) -> list[tuple[float, float | None, tuple[int, ...], bool]]:
    return [(s.start, s.end, s.leaders, s.settled) for s in found]


def test_the_lead_changes_with_the_budget() -> None:
    found = along([trial(0, 0.6, 100), trial(1, 0.9, 300)], [trial(0, 0.8, 200)])
    assert told(found) == [(100, 200, (0,), True), (200, 300, (1,), True), (300, None, (0,), True)]
    assert found[0].first[1] is None


def test_neighbours_with_one_leader_are_one_stretch() -> None:
    found = along([trial(0, 0.6, 100), trial(1, 0.7, 150), trial(2, 0.9, 300)], [trial(0, 0.5, 100)])
    assert told(found) == [(100, None, (0,), True)]
    assert [t.number for t in (found[0].first[0], found[0].last[0]) if t] == [0, 2]


def test_a_lead_within_the_noise_is_not_settled() -> None:
    found = along([trial(0, 0.70, 100), trial(1, 0.9, 300)], [trial(0, 0.69, 100)], margin=0.05)
    assert told(found) == [(100, 300, (0,), False), (300, None, (0,), True)]


def test_equals_lead_together_and_nothing_is_settled() -> None:
    assert told(along([trial(0, 0.7, 100)], [trial(5, 0.7, 100)])) == [(100, None, (0, 1), False)]


def test_a_cost_to_be_maximized_runs_downwards() -> None:
    fast, slow = [trial(0, 0.6, 50)], [trial(0, 0.9, 20)]
    found = stretches([fast, slow], ("accuracy", "maximize"), ("tokens_per_s", "maximize"), lambda *_: True)
    assert told(found) == [(50, 20, (0,), True), (20, None, (1,), True)]


def test_empty_fronts_lead_nowhere() -> None:
    assert along([], []) == ()
    assert told(along([], [trial(0, 0.5, 9)])) == [(9, None, (1,), True)]
