"""What work takes, learned from this run's own clock."""

from __future__ import annotations

from typing import Any

import pytest

from autotune.search.costs import learned_costs
from autotune.search.rungs import AdapterState, Rung
from autotune.search.view import View
from autotune.trials import State, TrialRecord
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams
from tests.searching import make_plan, state

PARAMS = AdapterParams(8, 8, 1e-4)


def trial(number: int, outcome: State, seconds: float, precision: str = "int8") -> TrialRecord:
    stages: dict[str, Any] = {"answers": {"seconds": seconds, "cached": False}}
    return TrialRecord(number, outcome, PARAMS, DeployParams(precision), None, {}, stages, None, None)


def test_trials_that_were_cut_short_do_not_tell_what_a_whole_one_takes() -> None:
    records = [trial(0, "COMPLETE", 100.0), *(trial(n, "PRUNED", 20.0) for n in (1, 2, 3))]
    assert learned_costs([], records, 1, 0.0).score == {DeployParams("int8").label: 100.0}
    only = learned_costs([], [*records, trial(4, "PRUNED", 30.0, "int4")], 1, 0.0)
    assert only.score[DeployParams("int4").label] == 30.0


@pytest.mark.parametrize("width", [1, 8])
def test_a_step_of_those_that_train_together_takes_as_long_whoever_is_asked(width: int) -> None:
    """Eight adapters shared 160 s of 20 steps: 20 s each."""
    rung = Rung(20, 0.2, 0.5, {"int8": 30}, 64, 160.0 / width)
    adapters = tuple(AdapterState(n, PARAMS, 100, (rung,)) for n in range(width))
    costs = learned_costs(adapters, [], width, 0.0)
    view = View.of(state(*adapters), make_plan(width=width, costs=costs))
    assert costs.step == pytest.approx(8.0)
    assert view.step_s(0) == view.step_s(None) == pytest.approx(8.0)


def test_steps_that_the_store_had_say_nothing_of_how_long_steps_take() -> None:
    adapter = AdapterState(0, PARAMS, 100, (Rung(20, 0.2, 0.5, {}, 64, 0.0), Rung(40, 0.4, 0.4, {}, 64, 20.0)))
    assert View.of(state(adapter), make_plan()).step_s(0) == pytest.approx(1.0)
