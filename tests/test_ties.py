"""Which trials of a front are no better than a cheaper one, as far as these rows can tell."""

from __future__ import annotations

import pytest

from autotune.search.ties import ties

ROWS = 200


def right(count: int) -> list[bool]:
    return [i < count for i in range(ROWS)]


def test_a_slightly_better_trial_is_tied_with_the_cheaper_one_and_a_clearly_better_one_is_not() -> None:
    rows = {1: right(164), 2: right(160), 3: right(100)}
    costs = {1: [300.0, 340.0], 2: [200.0, 340.0], 3: [100.0, 200.0]}
    assert ties(rows, costs, 0.95) == {1: 2}


def test_it_needs_rows_that_differ_and_not_only_their_number() -> None:
    # 6 rows more, and none less: 2 · 0.5**6 = 0.031. With 10 others each way the same 6 prove nothing.
    rows = {1: right(166), 2: right(160)}
    costs = {1: [2.0], 2: [1.0]}
    assert ties(rows, costs, 0.95) == {}
    assert ties(rows, costs, 0.97) == {1: 2}
    mixed = [i < 150 or 160 <= i < 170 for i in range(ROWS)]
    assert ties({1: right(166), 2: mixed}, costs, 0.95) == {1: 2}


def test_the_cheapest_of_several_is_named() -> None:
    rows = dict.fromkeys((1, 2, 3, 4), right(160))
    costs = {1: [4.0, 4.0], 2: [2.0, 3.0], 3: [2.0, 2.0], 4: [2.0, 2.0]}
    # 3 and 4 cost the same, so neither is cheaper than the other.
    assert ties(rows, costs, 0.95) == {1: 3, 2: 3}


def test_a_trial_that_is_cheaper_in_one_cost_and_dearer_in_another_is_not_cheaper() -> None:
    rows = dict.fromkeys((1, 2), right(160))
    assert ties(rows, {1: [1.0, 9.0], 2: [2.0, 8.0]}, 0.95) == {}
    assert ties({1: right(9)}, {1: [1.0]}, 0.95) == {}
    assert ties({}, {}, 0.95) == {}


def test_trials_that_were_asked_different_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="200 and 3 rows"):
        ties({1: right(160), 2: [True] * 3}, {1: [2.0], 2: [1.0]}, 0.95)
    with pytest.raises(KeyError):
        ties({1: right(160), 2: right(160)}, {1: [2.0]}, 0.95)
