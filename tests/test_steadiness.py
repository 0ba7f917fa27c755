"""Which requests count, the ratio under a machine that changes, and what is said of it."""

from __future__ import annotations

import dataclasses
import random

import pytest

from autotune.ratio import ratio
from objectives.steadiness import drift, steadiness, used_blocks, used_samples
from objectives.timing import Timing, WarmUp
from tests.timings import ASKED, abba, block


def growing(share: float, rounds: int = 4, noise: float = 0.0) -> Timing:
    """A machine that grows slower by ``share`` in all, evenly from block to block; the artifact takes 2/3."""
    draw = random.Random(0)
    made = abba([(100, 150)] * rounds)
    last = len(made.blocks) - 1
    blocks = []
    for i, b in enumerate(made.blocks):
        slower = (1 + share * i / last) * (1 + draw.uniform(-noise, noise))
        slowed = tuple(dataclasses.replace(s, latency_ms=s.latency_ms * slower) for s in b.samples)
        blocks.append(dataclasses.replace(b, samples=slowed))
    return dataclasses.replace(made, blocks=tuple(blocks))


def test_a_round_with_a_disturbed_block_does_not_count() -> None:
    timing = abba([(100, 150), (300, 450), (100, 150)], {6: 0.9})
    assert {b.round for b in used_blocks(timing)} == {0, 2}
    assert len(used_samples(timing)) == 12
    assert max(s.latency_ms for s in used_samples(timing)) == 102
    found = steadiness(timing)
    assert (found.state, found.disturbed_blocks, found.blocks) == ("steady", 1, 12)
    assert found.sentence() == "other processes took 0.9 cores in 1 of 12 blocks, which were timed again"


def test_with_too_few_undisturbed_samples_the_least_disturbed_count_too_and_it_is_said() -> None:
    timing = abba([(100, 150), (300, 450)], {4: 0.5, 7: 0.7}, wanted=8)
    assert len(used_samples(timing)) == 12
    slower = abba([(90, 135), (100, 150), (300, 450)], {1: 0.9, 8: 0.5, 11: 0.7}, wanted=8)
    assert {b.round for b in used_blocks(slower)} == {1, 2}  # the quicker round was the busier one
    found = steadiness(timing)
    assert found.state == "disturbed"
    assert found.outside_cores == pytest.approx(0.6)
    assert found.sentence().startswith("other processes took 0.6 cores in 2 of 8 blocks")
    assert "again" not in found.sentence()


def test_fewer_samples_than_asked_for_without_any_disturbance_are_steady() -> None:
    timing = abba([(100, 150)], wanted=50)
    assert len(used_samples(timing)) == 6
    assert steadiness(timing).state == "steady"


def test_the_ratio_survives_a_machine_that_changes_between_rounds() -> None:
    found = ratio(abba([(100, 150), (200, 300), (90, 135), (400, 600)]), "latency_ms.p50")
    assert found.value == pytest.approx(2 / 3)
    assert (found.low, found.high) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (found.n, found.unit) == (4, "")


def test_the_ratio_survives_an_even_drift_within_rounds() -> None:
    found = ratio(growing(0.4), "latency_ms.p50")
    assert found.value == pytest.approx(2 / 3, rel=0.002)


def test_the_ratios_interval_is_students_of_the_rounds_logarithms() -> None:
    found = ratio(abba([(100, 100), (121, 100)]), "latency_ms.p50", 0.9)
    assert found.value == pytest.approx(1.1)
    assert found.high == pytest.approx(1.1 * 1.1**6.3138, rel=1e-3)  # t of one degree of freedom at 0.95


def test_one_round_has_no_interval() -> None:
    found = ratio(abba([(100, 150)]), "ttft_ms.p50")
    assert (found.low, found.high, found.n) == (None, None, 1)


def test_a_tails_ratio_lies_between_the_ends_of_both_intervals_or_open() -> None:
    rounds = [(100 + i, 200 + i) for i in range(20)]
    found = ratio(abba(rounds, wanted=120), "latency_ms.p90")
    assert found.n == 120
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    few = ratio(abba(rounds[:2]), "latency_ms.p95")
    assert few.high is None
    assert few.low is None  # the reference's upper end is open too


def test_without_a_reference_there_is_no_ratio() -> None:
    alone = Timing(ASKED, (WarmUp("artifact", 3, True),), (block("artifact", 0, 0.0, [100] * 9),))
    with pytest.raises(ValueError, match="timed without a reference"):
        ratio(alone, "latency_ms.p50")
    with pytest.raises(ValueError, match="not made of timings"):
        ratio(abba([(1, 1)]), "accuracy")


@pytest.mark.parametrize("share", [0.14, -0.2])
def test_a_level_that_moves_is_drift(share: float) -> None:
    timing = growing(share, noise=0.01)
    found = drift(timing)
    assert found.change == pytest.approx(share, abs=0.03)
    assert found.real
    said = steadiness(timing)
    assert said.state == "drifting"
    direction = "slowed down" if share > 0 else "became faster"
    assert f"the machine {direction} by {abs(found.change):.0%} while it was measured" in said.sentence()


@pytest.mark.parametrize(("share", "noise"), [(0.0, 0.0), (0.0, 0.05), (0.03, 0.0)])
def test_scatter_and_small_changes_are_none(share: float, noise: float) -> None:
    found = steadiness(growing(share, noise=noise))
    assert found.state == "steady"
    assert "no drift" in found.sentence()


def test_too_few_blocks_tell_no_drift() -> None:
    alone = Timing(ASKED, (WarmUp("artifact", 3, True),),
                   tuple(block("artifact", i, float(i), [100 * (i + 1)] * 4) for i in range(2)))
    assert drift(alone).p == 1.0
    assert steadiness(alone).state == "steady"


def test_what_else_happened_is_said() -> None:
    timing = abba([(100, 150)] * 2)
    hot = tuple(dataclasses.replace(b, throttled=int(i > 4)) for i, b in enumerate(timing.blocks))
    said = steadiness(dataclasses.replace(timing, blocks=hot, warm_ups=(WarmUp("artifact", 40, False),))).sentence()
    assert "throttled itself in 3 of 8 blocks" in said
    assert "not yet level after 40 requests" in said
