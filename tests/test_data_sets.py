"""Data sets of the datasets library: real ones, from local folders."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from autotune.errors import DataError
from autotune.pipeline.data import read_rows
from autotune.pipeline.data_sets import parse_hub_name


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["joy", "fear"])}
    )
    data = {"text": ["a", "b", "c"], "label": [0, 1, 1]}
    train = datasets.Dataset.from_dict(data, features=features)
    validation = train.select([2])
    folder = tmp_path / "saved"
    datasets.DatasetDict({"train": train, "validation": validation}).save_to_disk(folder)
    return folder


def test_class_labels_become_names(saved: Path) -> None:
    rows = read_rows("saved", saved.parent, "train", ["text", "label"])
    assert [(r.line, r.where, r.values) for r in rows] == [
        (1, "row 1", {"text": "a", "label": "joy"}),
        (2, "row 2", {"text": "b", "label": "fear"}),
        (3, "row 3", {"text": "c", "label": "fear"}),
    ]


def test_split_by_the_study_s_name_or_given(saved: Path) -> None:
    assert len(read_rows("saved", saved.parent, "valid", ["text"])) == 1
    assert len(read_rows("saved:train", saved.parent, "valid", ["text"])) == 3


def test_missing_split_names_those_there_are(saved: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_rows("saved", saved.parent, "test", ["text"])
    assert caught.value.problems[0].found == "no split test"
    assert caught.value.problems[0].accepted == "saved:train, saved:validation"


def test_folder_of_data_files(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    for name, texts in {"train": ["a", "b"], "test": ["c"]}.items():
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text(lines)
    assert [r.values["text"] for r in read_rows("repository", tmp_path, "test", ["text"])] == ["c"]


def test_folder_with_code_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(DataError, match="cannot be loaded"):
        read_rows("scripted", tmp_path, "train", ["text"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("source", "parsed"),
    [
        ("org/name", ("org/name", None, None)),
        ("org/name:validation", ("org/name", None, "validation")),
        ("org/name@v1.0", ("org/name", "v1.0", None)),
        ("org/name@refs/convert/parquet:train", ("org/name", "refs/convert/parquet", "train")),
    ],
)
def test_hub_names(source: str, parsed: tuple[str, str | None, str | None]) -> None:
    assert parse_hub_name(source) == parsed


@pytest.mark.parametrize("source", ["name", "org/name/more", "org/name@", "org/name:", "../name", "org/na me"])
def test_not_hub_names(source: str) -> None:
    with pytest.raises(DataError, match="org/name@revision:split"):
        parse_hub_name(source)
