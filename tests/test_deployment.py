"""What a device is told, and the rows that were asked, without the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotune.deployment import deployment, rows_digest, rows_of
from autotune.errors import ConfigError, DataError
from autotune.finished import read_run
from autotune.storage.store import Store
from tests import bundles


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_the_rows_are_read_again_where_the_store_is_gone(tmp_path: Path, store: Store) -> None:
    run = read_run(bundles.written(tmp_path))
    found = deployment(run, store)
    assert found.task.labels == ("fear", "joy")
    assert rows_of(run, store, "valid", found)[1] == ("### Text: phrase 1\n### The tone is:\n", "joy")


def test_other_rows_than_were_asked_are_refused(tmp_path: Path, store: Store) -> None:
    run = read_run(bundles.written(tmp_path))
    lines = (tmp_path / "valid.jsonl").read_text(encoding="utf-8").replace("phrase 7", "phrase seven")
    (tmp_path / "valid.jsonl").write_text(lines, encoding="utf-8")
    with pytest.raises(DataError, match=r"valid\.jsonl: other rows than the run was made with; .*--samples 0"):
        rows_of(run, store, "valid", deployment(run, store))


def test_a_run_of_before_says_what_brings_its_rows_back(tmp_path: Path, store: Store) -> None:
    run = read_run(bundles.written(tmp_path, deployment=None))
    with pytest.raises(ConfigError, match="the store has the run's rows no more; accepted: a run by this version"):
        deployment(run, store)


def test_a_real_run_of_before_is_read_from_its_store(tmp_path: Path) -> None:
    run = bundles.certified()
    kept, store = read_run(run), Store(run.parent / "store")
    document = {**kept.document, "deployment": None}
    old = tmp_path / "old"
    old.mkdir()
    for name in ("study.yaml", "inputs.json"):
        (old / name).write_bytes((run / name).read_bytes())
    (old / "results.json").write_text(json.dumps(document), encoding="utf-8")
    was, is_now = deployment(read_run(old), store), deployment(kept, store)
    assert was.task == is_now.task
    assert was.task.labels == ("fear", "joy", "sadness")  # inferred from the rows
    assert rows_digest(rows_of(read_run(old), store, "test", was)) == is_now.rows["test"]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_rows_read_again_are_those_of_the_store(tmp_path: Path, store: Store, split: str) -> None:
    run = read_run(bundles.certified())
    assert run.document["deployment"]["model"]["kind"] == "folder"
    found = deployment(run, store)
    own = Store(run.root.parent / "store")
    assert rows_of(run, store, split, found) == rows_of(run, own, split, found)  # type: ignore[arg-type]
