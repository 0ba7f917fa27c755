"""A study of one trial alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from autotune.choosing.narrowed_study import narrowed
from autotune.constraints import parse
from autotune.finished import read_run
from search_spaces.space import parse_space
from tests import finished_runs


@pytest.mark.parametrize("number", [0, 1])
def test_its_space_is_that_trial(tmp_path: Path, number: int) -> None:
    run = read_run(finished_runs.write(tmp_path / "run"))
    study = yaml.safe_load(narrowed(run, run.trial(number), [parse("size_mb <= 999")], "fastest"))
    space, problems = parse_space(study["space"])
    assert not problems
    assert space is not None
    params = run.trial(number).params
    (point,) = space.deploy
    adapter = space.suggest(None)  # type: ignore[arg-type]  # nothing is left to ask
    assert {**adapter.flat(), **point.flat()} == {**params, "epochs": 1.0}
    assert study["budget"] == {"adapters": 1}
    assert (study["constraints"], study["policy"]) == (["size_mb <= 999"], "fastest")
    assert study["data"] == run.study["data"]
    assert study["name"] == f"tone-trial-{number}"


def test_a_relative_limit_is_written_as_its_number(tmp_path: Path) -> None:
    run = read_run(finished_runs.write(tmp_path / "run"))
    limit = parse("accuracy >= 0.9 * baseline").resolved({"accuracy": 0.7})
    study = yaml.safe_load(narrowed(run, run.trial(0), [limit], "knee"))
    assert parse(study["constraints"][0]).bound == pytest.approx(0.63)
