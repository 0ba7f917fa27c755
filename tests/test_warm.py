"""A warm start: which runs it takes, and what of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotune.errors import ConfigError
from autotune.search.asking import Known
from autotune.search.optuna_study import open_study
from autotune.search.proposals import Proposals
from autotune.search.warm import earlier_adapters
from tests.test_proposals import WIDE

NAMES = ["accuracy at the largest", "accuracy at the smallest"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "inputs.json").write_text(json.dumps({"base": "base-1", "data": "data-1"}), encoding="utf-8")
    (tmp_path / "study.yaml").write_text("name: tone\nmodel: some/model\n", encoding="utf-8")
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", "tone/proposals", ["maximize", "maximize"], NAMES)
    proposals = Proposals(study, WIDE, 0)
    (first, _), (_, _) = proposals.propose(2)
    proposals.tell(first, [0.8, 0.7], {"accuracy >= 0.9": 0.1})
    return tmp_path


def test_the_same_rows_teach_the_sampler_and_other_rows_or_objectives_only_order_adapters(run: Path) -> None:
    same = earlier_adapters(run, "base-1", "data-1", NAMES)
    assert same.comparable
    assert [(k.values, k.violations) for k in same.known] == [((0.8, 0.7), {"accuracy >= 0.9": 0.1})]
    for other in (earlier_adapters(run, "base-1", "data-2", NAMES), earlier_adapters(run, "base-1", "data-1", ["f1"])):
        assert not other.comparable
        assert other.known == (Known(same.known[0].params, (0.8, 0.7)),)


def test_a_run_of_another_base_model_is_refused_by_its_name(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"--warm-start: .*another base model \(some/model\)"):
        earlier_adapters(run, "base-2", "data-1", NAMES)


@pytest.mark.parametrize("damage", ["inputs.json", "study.yaml", "study.db"])
def test_a_folder_that_is_no_run_is_refused(run: Path, damage: str) -> None:
    (run / damage).unlink()
    with pytest.raises(ConfigError, match="No such file or directory"):
        earlier_adapters(run, "base-1", "data-1", NAMES)
    (run / damage).write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="accepted: the folder of an earlier run"):
        earlier_adapters(run, "base-1", "data-1", NAMES)
