"""What the best adapters score with other training seeds, and that it stands where people look."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.errors import TrainingError
from autotune.finished import read_run
from autotune.report.report_html import report_html
from autotune.report.terminal import Terminal
from autotune.search.repeats import Repeated, best_of_each, repeat
from autotune.stats import Measurement, proportion
from autotune.trials import TrialRecord
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams
from tests import studies

SIGNED = [("accuracy", "maximize"), ("size_mb", "minimize")]


def record(number: int, rank: int, precision: str, right: int, size: float, state: str = "COMPLETE") -> TrialRecord:
    values = {"accuracy": proportion(right, 100, 0.95), "size_mb": Measurement(size, size, size, 1, "MB")}
    return TrialRecord(number, state, AdapterParams(rank, 8.0, 1e-3), DeployParams(precision), "key", values, {},
                       None, None)


RECORDS = [
    record(0, 4, "int8", 70, 300), record(1, 4, "int4", 60, 200), record(2, 8, "int8", 65, 300),
    record(3, 8, "int4", 64, 200), record(4, 16, "int8", 50, 300), record(5, 32, "int8", 99, 300, state="PRUNED"),
]


@pytest.mark.parametrize(("policy", "first"), [("most-accurate", [0, 3, 4]), ("smallest", [3, 0, 4])])
def test_each_adapter_is_repeated_once_at_its_best_point(policy: str, first: list[int]) -> None:
    found = best_of_each(RECORDS, (0, 3), SIGNED, policy, 3)
    assert [r.number for r in found] == first
    assert [r.number for r in best_of_each(RECORDS, (0, 3), SIGNED, policy, 1)] == first[:1]


def test_a_seed_that_fails_costs_itself_alone() -> None:
    def score(trial: TrialRecord, seed: int) -> Measurement:
        if seed == 6:
            raise TrainingError("the loss diverged")
        return proportion(80, 100, 0.95)

    found = repeat(RECORDS[0], "accuracy", [5, 6, 7], score, Terminal(quiet=True, silent=True))
    assert {seed: m.value for seed, m in found.scores.items()} == {5: 0.7, 7: 0.8}
    assert found.failed == {6: "train: the loss diverged"}
    assert found.mean == pytest.approx(0.75)
    assert found.deviation == pytest.approx(0.0707, abs=1e-4)


def test_one_seed_has_no_deviation() -> None:
    alone = Repeated(0, "int8-b32", "accuracy", {0: proportion(70, 100, 0.95)}, {1: "training: out of memory"})
    assert alone.as_json()["deviation"] is None
    assert "deviation" not in alone.sentence()


def test_a_study_trains_its_best_adapters_again(tmp_path: Path) -> None:
    study = studies.write_study(tmp_path, repeats={"adapters": 2, "seeds": 2}, budget={"adapters": 2},
                                training={"threads": 1, "seed": 7})
    done = studies.run(study, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    document = studies.results(tmp_path / "run")
    assert len(document["repeats"]) == 2
    by_number = {t["number"]: t for t in document["trials"]}
    for found in document["repeats"]:
        assert [s["seed"] for s in found["seeds"]] == [7, 8]
        assert found["seeds"][0]["value"] == by_number[found["trial"]]["values"]["accuracy"]["value"]
        assert found["sentence"] in done.stdout
        assert found["sentence"] in report_html(read_run(tmp_path / "run"))
    assert document["cost"]["adapters_trained"] == 4
    assert document["repeats"][0]["trial"] in document["front"]
    again = studies.run(study, tmp_path / "again")
    assert studies.results(tmp_path / "again")["repeats"] == document["repeats"]
    assert studies.results(tmp_path / "again")["cost"]["adapters_trained"] == 0, again.stdout
