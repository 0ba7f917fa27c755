"""The repeatability benchmark counts runs near the median of all."""

from __future__ import annotations

from benchmarks.repeatability import Run, holds, tables


def run(by_turns: float, apart: float = 1.5) -> Run:
    return Run(by_turns, apart, "steady")


def test_nine_of_ten_within_five_percent_hold_and_eight_do_not() -> None:
    near, far = run(1.52), run(1.7)
    assert holds([near] * 9 + [far])
    assert not holds([near] * 8 + [far, far])


def test_the_table_has_a_row_a_run_and_says_how_far_they_reach() -> None:
    lines = tables([run(1.5), run(1.5, 2.0), run(1.53)])
    assert len([line for line in lines if line.startswith("|")]) == 5
    assert "3 of 3 by turns (from +0.0% to +2.0%), 2 of 3 by medians" in lines[-1]
    assert "holds here" in lines[-1]
