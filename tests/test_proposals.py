"""Proposals: expert points first, none twice, the same after a restart; with real Optuna storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from autotune.search.asking import Known
from autotune.search.optuna_study import open_study
from autotune.search.proposals import Expected, Proposals, read_study
from autotune.search.schedule import first_points
from search_spaces.space import Space, parse_space


def make_space(**adapter: Any) -> Space:
    space, problems = parse_space({"adapter": adapter, "deploy": [{"precision": "int8"}]})
    assert space is not None, problems
    return space


WIDE = make_space(rank=[4, 8, 16, 32], learning_rate={"low": 1e-4, "high": 1e-3, "log": True},
                  targets=["all-linear", "qv"], variant=["lora", "dora"], dropout=[0.0, 0.1])


def open_proposals(folder: Path, space: Space = WIDE, seed: int = 0) -> Proposals:
    study = open_study(f"sqlite:///{folder / 'study.db'}", "s", ["maximize", "maximize"], ["big", "small"])
    return Proposals(study, space, seed)


def known(folder: Path) -> list[Known]:
    return read_study(folder / "study.db", "s")[1]


def tell(proposals: Proposals, found: Any) -> None:
    trial, params = found
    quality = 1 - abs(params.learning_rate - 4e-4) * 1000
    proposals.tell(trial, [quality, quality / 2], {"accuracy >= 0.5": 0.5 - quality})


def test_expert_points_come_first_then_others_and_none_twice(tmp_path: Path) -> None:
    proposals = open_proposals(tmp_path)
    seen = []
    for _ in range(12):
        found = proposals.next()
        assert found is not None
        seen.append(found[1])
        tell(proposals, found)
    assert len(set(seen)) == 12
    assert [p.learning_rate for p in seen[:2]] == [p["learning_rate"] for p in first_points(WIDE)[:2]]


def test_a_restart_proposes_what_an_unbroken_run_would(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    unbroken = open_proposals(tmp_path / "a")
    expected, broken = [], []
    for _ in range(10):
        found = unbroken.next()
        assert found is not None
        expected.append(found[1])
        tell(unbroken, found)
    for _ in range(10):
        reopened = open_proposals(tmp_path / "b")
        found = reopened.next()
        assert found is not None
        broken.append(found[1])
        tell(reopened, found)
    assert broken == expected


def test_a_proposal_left_running_is_handed_out_again(tmp_path: Path) -> None:
    first = open_proposals(tmp_path).next()
    assert first is not None
    again = open_proposals(tmp_path)
    assert again.running()
    resumed = again.next()
    assert resumed is not None
    assert (resumed[0].number, resumed[1]) == (first[0].number, first[1])
    assert again.count() == 1


def test_a_finite_space_ends(tmp_path: Path) -> None:
    proposals = open_proposals(tmp_path, make_space(rank=[4, 8], targets=["qv", "mlp"]))
    seen = set()
    while found := proposals.next():
        seen.add(found[1])
        tell(proposals, found)
        assert len(seen) <= 4
    assert len(seen) == 4


def test_limits_reach_the_sampler(tmp_path: Path) -> None:
    proposals = open_proposals(tmp_path)
    found = proposals.next()
    assert found is not None
    tell(proposals, found)
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert study.trials[0].constraints == {"accuracy >= 0.5": pytest.approx(-0.4, abs=0.2)}


def test_several_adapters_are_under_way_and_a_restart_finds_them(tmp_path: Path) -> None:
    batch = open_proposals(tmp_path).propose(6)
    assert len({params for _, params in batch}) == 6
    again = open_proposals(tmp_path)
    assert [(t.number, p) for t, p in again.under_way()] == [(t.number, p) for t, p in batch]
    again.fail(batch[2][0], "the loss is not finite")
    again.stop(batch[4][0], "stopped at 1/5 of its steps", Expected((0.6, 0.5), {"accuracy >= 0.7": 0.1}))
    assert [a.reason for a in again.adapters()] == [
        None, None, "the loss is not finite", None, "stopped at 1/5 of its steps", None]
    assert len(again.under_way()) == 4
    assert again.count() == 6


def test_batches_of_one_process_are_those_of_another(tmp_path: Path) -> None:
    found = []
    for name, restart in (("a", False), ("b", True)):
        (tmp_path / name).mkdir()
        proposals, seen = open_proposals(tmp_path / name), []
        for _ in range(3):
            for one in proposals.propose(4):
                seen.append(one[1])
                tell(proposals, one)
            proposals = open_proposals(tmp_path / name) if restart else proposals
        found.append(seen)
    assert found[0] == found[1]
    assert len(set(found[0])) == 12


def test_a_stopped_adapter_is_marked_and_still_teaches(tmp_path: Path) -> None:
    proposals = open_proposals(tmp_path)
    trial, _ = proposals.propose(1)[0]
    proposals.stop(trial, "stopped at 1/5 of its steps", Expected((0.6, 0.5), {"accuracy >= 0.7": 0.1}))
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert study.trials[0].state == optuna.trial.TrialState.PRUNED
    assert study.trials[0].user_attrs["expected big"] == "0.600"
    assert known(tmp_path) == [Known(study.trials[0].params, (0.6, 0.5), {"accuracy >= 0.7": 0.1})]


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_an_end_that_a_process_died_in_is_ended_by_the_next(
    tmp_path: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposals = open_proposals(tmp_path)
    trial, _ = proposals.propose(1)[0]

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    end = {"stopped": lambda: proposals.stop(trial, "the reason", Expected((0.6, 0.5), {})),
           "failed": lambda: proposals.fail(trial, "the reason")}[state]
    with monkeypatch.context() as patch:
        patch.setattr(optuna.study.Study, "tell", dies)
        with pytest.raises(KeyboardInterrupt):
            end()
    later = open_proposals(tmp_path)
    later.close_ended()
    assert [(p.state, p.reason) for p in later.adapters()] == [(state, "the reason")]
    later.close_ended()
    assert len(later.propose(2)) == 2


def test_what_is_forecast_of_adapters_under_way_moves_the_next_ones(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    asked = []
    for name, sign in (("a", 1), ("b", -1)):
        proposals = open_proposals(tmp_path / name)
        begun = proposals.propose(12)
        quality = {t.number: sign * p.learning_rate for t, p in begun}
        asked.append(proposals.propose(8, {n: Expected((q, q), {}) for n, q in quality.items()}))
    mean = [sum(p.learning_rate for _, p in found) / 8 for found in asked]
    assert mean[0] > mean[1]


def test_a_warm_start_begins_with_the_best_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "earlier").mkdir()
    (tmp_path / "later").mkdir()
    earlier = open_proposals(tmp_path / "earlier")
    for _ in range(10):
        found = earlier.next()
        assert found is not None
        tell(earlier, found)
    best = sorted(known(tmp_path / "earlier"), key=lambda k: -k.values[0] if k.values else 0)[:4]
    later = open_proposals(tmp_path / "later", seed=5)
    foreign = Known({"rank": 512, "learning_rate": 1e-4}, (2.0, 2.0))
    assert later.warm_start([*known(tmp_path / "earlier"), foreign]) == 4
    again = open_proposals(tmp_path / "later", seed=5)  # what was kept, is kept
    rates = [p.learning_rate for _, p in again.propose(4)]
    assert rates == [k.params["learning_rate"] for k in best]
    assert again.warm_start([]) == 0
    assert [p.learning_rate for _, p in open_proposals(tmp_path / "later").propose(2)] != rates[:2]
    assert again.count() == 6
