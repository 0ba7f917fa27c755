"""The rows that travel with a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotune import predictions
from autotune.bundle.choice import choose
from autotune.bundle.samples import Samples, draw, picked
from autotune.deployment import deployment
from autotune.errors import ConfigError
from autotune.finished import read_run
from autotune.storage.store import Store
from tests import bundles


def drawn(folder: Path, count: int) -> Samples:
    run, store = read_run(folder / "run"), Store(folder / "store")
    return draw(choose(run, None), store, deployment(run, store), count)


def test_a_sample_is_a_prompt_with_the_right_answer_and_the_artifacts(tmp_path: Path) -> None:
    bundles.written(tmp_path)
    found = drawn(tmp_path, 10)
    rows = [json.loads(line) for line in found.lines]
    assert (len(rows), found.total, found.split) == (10, 40, "valid")
    assert [row["row"] for row in rows] == sorted(row["row"] for row in rows)
    for row in rows:
        assert row["prompt"] == f"### Text: phrase {row['row']}\n### The tone is:\n"
        assert (row["expected"], row["answer"]) == (("fear", "joy")[row["row"] % 2], "joy")


def test_which_rows_they_are_depends_on_their_texts_alone() -> None:
    pairs = [(f"text {i}", "a") for i in range(100)]
    chosen = {pairs[row] for row in picked(pairs, 12)}
    assert {pairs[::-1][row] for row in picked(pairs[::-1], 12)} == chosen
    assert chosen < {pairs[row] for row in picked(pairs, 13)}
    assert picked(pairs, 1000) == list(range(100))


def test_none_are_drawn_where_none_may_travel(tmp_path: Path) -> None:
    run = bundles.written(tmp_path)
    (run / "predictions" / "trial-2.csv").unlink()
    assert drawn(tmp_path, 0).as_json() == {"count": 0, "of": None, "split": "valid"}


def test_answers_that_are_gone_or_of_other_rows_are_named(tmp_path: Path) -> None:
    path = bundles.written(tmp_path) / "predictions" / "trial-2.csv"
    predictions.save(path, ["joy"] * 40, ["joy"] * 40)
    with pytest.raises(ConfigError, match=r"trial-2\.csv: no answers to the 40 valid rows.*--samples 0"):
        drawn(tmp_path, 5)
    path.unlink()
    with pytest.raises(ConfigError, match=r"trial-2\.csv: No such file"):
        drawn(tmp_path, 5)
