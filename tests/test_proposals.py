"""Proposals: expert points first, none twice, the same after a restart; with real Optuna storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from autotune.search.proposals import Proposals, open_study
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
