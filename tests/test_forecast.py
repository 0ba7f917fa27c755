"""Forecasts from rungs: gains learned from finished adapters, noise kept, one point telling of the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autotune.search.forecast import Forecast, Forecasts
from autotune.search.rungs import AdapterState, Outcome
from tests.searching import POINTS, adapter, make_plan, scored

PLAN = make_plan()
ALL = tuple(POINTS)


def test_before_any_has_finished_priors_speak_and_are_wide() -> None:
    found = Forecasts([adapter(0, (0.2,), 0.7), adapter(1, (0.2,), 0.6)], PLAN)
    better, worse = found.of(0), found.of(1)
    assert (better.mean > worse.mean).all()
    assert (better.sd > 0.05).all()
    assert (better.sd < 0.15).all()


def test_the_gain_after_a_rung_is_learned_from_those_that_finished() -> None:
    done = [adapter(n, (0.2, 0.4, 1.0), 0.6 + 0.02 * n, scored=scored(0.6 + 0.02 * n, *ALL)) for n in range(8)]
    begun = adapter(9, (0.2,), 0.67)
    before, after = Forecasts([begun], PLAN).of(9), Forecasts([*done, begun], PLAN).of(9)
    assert after.mean[0] == pytest.approx(0.67, abs=0.015)
    assert after.mean[2] == pytest.approx(0.62, abs=0.015)  # int4 loses 0.05
    assert (after.sd < before.sd).all()


def test_a_later_rung_is_the_surer_one() -> None:
    found = Forecasts([adapter(0, (0.2, 0.4), 0.7), adapter(1, (0.2,), 0.7)], PLAN)
    assert (found.of(0).sd < found.of(1).sd).all()


def test_a_lucky_first_rung_is_not_believed_whole() -> None:
    many = [adapter(n, (0.2,), 0.6) for n in range(10)]
    found = Forecasts([*many, adapter(10, (0.2,), 0.8)], PLAN)
    ahead = found.of(10).mean - found.of(0).mean
    assert (ahead > 0.05).all()
    assert (ahead < 0.17).all()


def test_what_was_scored_is_known_and_moves_the_points_that_were_not() -> None:
    one = adapter(0, (0.2, 0.4, 1.0), 0.7)
    before = Forecasts([one], PLAN).of(0)
    surprise = replace(one, scored=scored(float(before.mean[1]) + 0.1, "int8"))
    after = Forecasts([surprise], PLAN).of(0)
    assert after.mean[1] == pytest.approx(before.mean[1] + 0.1)
    assert after.sd[1] == 0
    assert after.mean[0] - before.mean[0] == pytest.approx(0.1, abs=0.04)
    assert (after.sd < before.sd).all()


def test_a_surprise_at_4_bits_tells_less_of_finer_points_than_one_at_8_bits_does() -> None:
    one = adapter(0, (0.2, 0.4, 1.0), 0.7)
    before = Forecasts([one], PLAN).of(0)

    def after(**seen: float) -> Forecast:
        outcomes = {label: Outcome("COMPLETE", {"accuracy": value, **POINTS[label]}) for label, value in seen.items()}
        return Forecasts([replace(one, scored=outcomes)], PLAN).of(0)

    _, int8, int4 = before.mean
    coarse, fine = after(int4=int4 - 0.1), after(int8=int8 - 0.1)
    assert 0.5 < (coarse.mean - before.mean)[0] / (fine.mean - before.mean)[0] < 0.85
    assert coarse.sd[0] > 1.4 * fine.sd[0]


def test_a_new_adapter_is_expected_to_be_as_those_so_far() -> None:
    done = [adapter(n, (1.0,), q, scored=scored(q, *ALL)) for n, q in enumerate((0.6, 0.65, 0.7, 0.75))]
    found = Forecasts(done, make_plan((1.0,))).new()
    assert found.mean == pytest.approx([0.675, 0.675, 0.625])
    assert (found.sd > 0.05).all()
    assert np.isfinite(Forecasts([], PLAN).new().mean).all()


def test_losses_alone_tell_too_once_some_have_finished() -> None:
    def silent(number: int, quality: float, *labels: str) -> object:
        one = adapter(number, (0.2, 1.0) if labels else (0.2,), quality, scored=scored(quality, *labels))
        return replace(one, rungs=tuple(replace(r, right={}) for r in one.rungs))

    adapters = [silent(n, 0.6 + 0.02 * n, *ALL) for n in range(6)] + [silent(7, 0.62), silent(8, 0.72)]
    found = Forecasts(adapters, make_plan((0.2, 1.0)))  # type: ignore[arg-type]
    assert (found.of(8).mean > found.of(7).mean).all()


def test_a_diverged_loss_does_not_spoil_the_others() -> None:
    diverged = adapter(5, (0.2,), 0.3)
    diverged = replace(diverged, rungs=(replace(diverged.rungs[0], valid_loss=None),))
    found = Forecasts([adapter(0, (0.2,), 0.7), adapter(1, (0.2,), 0.68), diverged], PLAN)
    assert np.isfinite(found.of(0).mean).all()
    assert (found.of(5).mean < found.of(0).mean).all()


def test_a_point_whose_rounding_was_not_judged_is_told_from_the_others_and_from_what_was_scored_there() -> None:
    def unjudged(number: int, fractions: tuple[float, ...], quality: float, *labels: str) -> AdapterState:
        one = adapter(number, fractions, quality, scored=scored(quality, *labels))
        return replace(one, rungs=tuple(replace(r, right={k: v for k, v in r.right.items() if k != "int4"})
                                        for r in one.rungs))

    begun = unjudged(9, (0.2,), 0.66)
    before = Forecasts([begun], PLAN).of(9)
    assert before.mean[2] == pytest.approx(before.mean[:2].mean(), abs=1e-6)
    assert before.sd[2] > before.sd[0]
    done = [unjudged(n, (0.2, 0.4, 1.0), 0.6 + 0.02 * n, *ALL) for n in range(8)]
    after = Forecasts([*done, begun], PLAN).of(9)
    assert after.mean[2] == pytest.approx(after.mean[0] - 0.05, abs=0.015)  # what int4 lost with the others


def test_a_rung_where_only_some_were_judged_spoils_nothing() -> None:
    silent = adapter(1, (0.2,), 0.7)
    silent = replace(silent, rungs=(replace(silent.rungs[0], right={}),))
    for adapters in ([silent, adapter(0, (0.2,), 0.7)], [adapter(0, (0.2,), 0.7), silent]):
        found = Forecasts(adapters, PLAN)
        assert np.isfinite([found.of(n).mean for n in (0, 1)]).all()
        assert np.isfinite([found.of(n).sd for n in (0, 1)]).all()
