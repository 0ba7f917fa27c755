"""Parameters as reports show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.finished import read_run
from autotune.report.parameters import adapter_text, told, varied
from tests import finished_runs


def test_what_is_the_same_for_all_is_left_out(tmp_path: Path) -> None:
    trials = read_run(finished_runs.write(tmp_path / "run")).trials
    assert varied(trials) == ["rank", "precision"]
    assert varied(trials, deploy=False) == ["rank"]
    assert varied(trials[:1]) == varied(()) == []


@pytest.mark.parametrize(("value", "text"), [
    (None, "–"), (True, "yes"), (False, "no"), (16, "16"), (0.000512345, "0.000512"), (16.0, "16"), ("qv", "qv"),
])
def test_values_in_words(value: object, text: str) -> None:
    assert told(value) == text


def test_an_adapter_in_a_few_words() -> None:
    params = finished_runs.trial(0, "int4", 8, 0.7, 180, 210)["params"]
    assert adapter_text(params) == "r 8, alpha 16, lr 0.0005, all-linear, 1 epoch"
