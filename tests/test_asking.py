"""Asking Optuna out of what is known by now."""

from __future__ import annotations

from statistics import median

import pytest

from autotune.pareto import Direction
from autotune.search.asking import Known, ask, best_first, given
from search_spaces.adapter import AdapterParams
from tests.test_proposals import make_space

BOTH: tuple[Direction, ...] = ("maximize", "maximize")
SPACE = make_space(rank=[4, 8, 16, 32], rate_scale={"low": 1e-4, "high": 1e-2, "log": True},
                   scale={"low": 0.5, "high": 4.0, "log": True})


def known(rate_scale: float, value: float | None, over: float = -0.1) -> Known:
    values = None if value is None else (value, value)
    return Known({"rank": 8, "rate_scale": rate_scale, "scale": 1.0}, values, {"accuracy >= 0.5": over})


def rates(found: list[Known], seeds: int = 24) -> list[float]:
    asked = [ask(SPACE, found, set(), BOTH, seed) for seed in range(seeds)]
    return [a.adapter.learning_rate * a.adapter.scale for a in asked if a]


def test_what_is_known_now_decides_where_the_next_adapter_is() -> None:
    points = [1e-4 * 100 ** (i / 15) for i in range(16)]
    low = rates([known(p, 1 - i / 15) for i, p in enumerate(points)])
    high = rates([known(p, i / 15) for i, p in enumerate(points)])
    assert median(low) < 8e-4 < 1.5e-3 < median(high)


def test_adapters_that_break_a_limit_draw_no_others() -> None:
    points = [1e-4 * 100 ** (i / 15) for i in range(16)]
    held = rates([known(p, i / 15, 0.5 if i > 7 else -0.1) for i, p in enumerate(points)])
    assert median(held) < median(rates([known(p, i / 15) for i, p in enumerate(points)]))


def test_the_same_is_asked_for_the_same_knowledge_and_no_adapter_twice() -> None:
    small = make_space(rank=[4, 8], targets=["qv", "mlp"])
    taken: set[AdapterParams] = set()
    for _ in range(4):
        one, again = (ask(small, [], taken, BOTH, 3) for _ in range(2))
        assert one is not None
        assert again is not None
        assert one.adapter == again.adapter
        assert one.adapter not in taken
        taken.add(one.adapter)
    assert ask(small, [], taken, BOTH, 3) is None


def test_of_two_equal_peaks_the_one_where_adapters_are_under_way_is_left_to_them() -> None:
    points = [1e-4 * 100 ** (i / 39) for i in range(40)]
    told = [known(p, 0.9 if i in (7, 8, 31, 32) else 0.1) for i, p in enumerate(points)]
    under_way = [known(points[31] * (1 + 0.02 * i), None) for i in range(-8, 20)]
    high, crowded = (sum(rate > 1e-3 for rate in rates(found)) for found in (told, [*told, *under_way]))
    assert crowded < high


def test_points_of_another_space_tell_nothing_and_do_no_harm() -> None:
    foreign = Known({"rank": 64, "rate_scale": 1.0, "scale": 1.0}, (1.0, 1.0))
    assert given(SPACE, foreign.params) is None
    assert given(SPACE, {"rank": 8}) is None
    assert ask(SPACE, [foreign], set(), BOTH, 0) == ask(SPACE, [], set(), BOTH, 0)


def test_the_best_of_an_earlier_run_hold_the_limits_and_lie_on_its_front() -> None:
    runs = [known(1e-3, 0.7), known(2e-3, 0.9, over=0.2), known(3e-3, 0.8), known(4e-3, None), known(5e-3, 0.6)]
    assert [p["rate_scale"] for p in best_first(runs, BOTH, 3)] == [3e-3, 1e-3, 5e-3]


def test_one_axis_for_rate_and_scale() -> None:
    point = given(SPACE, {"rank": 8, "rate_scale": 1e-3, "scale": 2.0})
    assert point is not None
    assert point.adapter.learning_rate == pytest.approx(5e-4)
    assert point.adapter.alpha == 16
