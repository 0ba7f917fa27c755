"""From rows to a draft: what a study would refuse is refused here, and paths hold from the study's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotune.drafting.columns import Column
from autotune.drafting.new_study import (
    Decisions,
    draft,
    examine,
    model_spec,
    prompt_template,
    read_columns,
    relative_to,
    require_columns,
    require_two,
    study_name,
    without_strangers,
)
from autotune.drafting.study_writer import Draft
from autotune.errors import ConfigError, DataError
from objectives.templates import render, template_columns

CHOICE = Decisions(("text",), "tone", "choice")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def rows(count: int = 60, **more: Any) -> list[dict[str, Any]]:
    return [{"text": f"some words {i}", "tone": ["joy", "fear"][i % 2], **more} for i in range(count)]


def drafted(folder: Path, content: list[dict[str, Any]], chosen: Decisions = CHOICE) -> Draft:
    found = examine({"train": write(folder / "train.jsonl", content)}, chosen)
    return draft(found, chosen, name="n", model="m", base_dir=folder, limits=[])


def test_rows_that_a_study_refuses_are_all_named(tmp_path: Path) -> None:
    bad = [*rows(), {"text": "", "tone": "joy"}, {"text": "a", "tone": None}]
    train = write(tmp_path / "train.jsonl", bad)
    test = write(tmp_path / "test.jsonl", [{"text": "b"}, {"text": "c", "tone": "joy"}])
    with pytest.raises(DataError) as caught:
        examine({"train": train, "test": test}, CHOICE)
    assert [(p.file, p.where) for p in caught.value.problems] == [
        ("train.jsonl", "line 61"), ("train.jsonl", "line 62"), ("test.jsonl", "line 1")]


def test_one_of_several_prompt_columns_may_be_empty_all_may_not(tmp_path: Path) -> None:
    chosen = Decisions(("text", "context"), "tone", "choice")
    content = [*rows(context=""), {"text": "", "context": "x", "tone": "joy"}]
    assert drafted(tmp_path, content, chosen).rows == {"train": 61}
    with pytest.raises(DataError, match="text, context all empty"):
        drafted(tmp_path, [*content, {"text": "", "context": "", "tone": "joy"}], chosen)


def test_too_few_rows_to_cut_a_split_from_are_said_now(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of which none falls to"):
        drafted(tmp_path, rows(2))


def test_too_many_labels_are_no_choice(tmp_path: Path) -> None:
    content = [{"text": f"a {i}", "tone": f"t{i}"} for i in range(201)]
    with pytest.raises(DataError, match="201 different answers in the column 'tone'; accepted: 2 to 200 labels"):
        drafted(tmp_path, content)


def test_labels_of_every_split_count_the_most_frequent_first(tmp_path: Path) -> None:
    files = {"train": write(tmp_path / "a.jsonl", [{"text": f"{i}", "tone": "joy"} for i in range(60)]),
             "valid": write(tmp_path / "b.jsonl", [{"text": f"v{i}", "tone": "fear"} for i in range(20)])}
    found = draft(examine(files, CHOICE), CHOICE, name="n", model="m", base_dir=tmp_path, limits=[])
    assert found.labels == [("joy", 0.75), ("fear", 0.25)]
    assert found.rows == {"train": 60, "valid": 20}


def test_long_rows_raise_what_a_row_may_have(tmp_path: Path) -> None:
    assert drafted(tmp_path, rows()).max_tokens is None
    long = drafted(tmp_path, [{**row, "text": row["text"] + " word" * 900} for row in rows()])
    assert long.max_tokens == 2048
    assert long.prompt_tokens > 1200


def test_generation_has_room_for_nearly_every_answer(tmp_path: Path) -> None:
    content = [{"text": f"a {i}", "tone": "word " * (i % 20 + 1)} for i in range(100)]
    found = drafted(tmp_path, content, Decisions(("text",), "tone", "generate"))
    assert found.answer_tokens >= 1.4 * 20
    assert found.answer_tokens % 8 == 0
    assert found.labels == []


def test_what_makes_scores_doubtful_is_noted(tmp_path: Path) -> None:
    content = [*rows(), {"text": "x", "tone": "Joy "}]
    files = {"train": write(tmp_path / "a.jsonl", content), "test": write(tmp_path / "b.jsonl", content[:2])}
    notes = " ".join(examine(files, CHOICE).notes)
    assert "has the prompt of b.jsonl line 1 (test)" in notes
    assert "'joy' and 'Joy ' are nearly the same" in notes


def test_files_without_the_columns_are_left_out_unless_they_were_named(tmp_path: Path) -> None:
    files = {"train": write(tmp_path / "train.jsonl", rows()), "test": write(tmp_path / "test.jsonl", [{"text": "a"}])}
    assert without_strangers(files, CHOICE, keep=()) == (
        {"train": files["train"]}, ["test.jsonl is not used: it has no tone"])
    assert without_strangers(files, CHOICE, keep=("test",)) == (files, [])


def test_columns_that_are_not_there_or_that_no_template_takes(tmp_path: Path) -> None:
    columns = read_columns(write(tmp_path / "a.jsonl", [{"text": "a", "user.name": "b"}]))
    with pytest.raises(ConfigError) as caught:
        require_columns(columns, {"--prompt-column": ["txt", "user.name"], "--answer-column": ["text"]}, "a.jsonl")
    assert [p.found for p in caught.value.problems] == [
        "no column 'txt' in a.jsonl, did you mean 'text'?",
        "the column 'user.name' of a.jsonl, whose name no template can hold"]


@pytest.mark.parametrize(("name", "found"), [
    ("nothing.jsonl", "no such file"), ("folder.csv", "a folder"), ("a.txt", "a .txt file"), ("empty.jsonl", "no rows"),
])
def test_files_that_are_no_data(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "a.txt").touch()
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match=found):
        read_columns(tmp_path / name)


def test_one_column_is_not_enough() -> None:
    columns = [Column("text", ("a", "b")), Column("messages", (None, None))]
    with pytest.raises(DataError, match=r"fewer than two .* \(messages: null, lists or objects in every row\)"):
        require_two(columns, "a.jsonl")


def test_templates_name_every_column() -> None:
    template = prompt_template(["the_text", "Über uns"], "tone-of")
    assert template == "### The text: {the_text}\n### Über uns: {Über uns}\n### Tone of:\n"
    assert template_columns(template) == ["the_text", "Über uns"]
    assert render(prompt_template(["a"], "{b}"), {"a": "x"}) == "### A: x\n### {b}:\n"


@pytest.mark.parametrize(("stem", "name"), [
    ("tone", "tone"), ("my data (2)", "my-data-2"), ("00000-of-00001", "folder"), ("", "folder"),
    ("été_données", "ete_donnees"), ("qa", "qa"),
])
def test_names_of_studies(tmp_path: Path, stem: str, name: str) -> None:
    (tmp_path / "folder").mkdir()
    assert study_name(stem, tmp_path / "folder") == name


def test_paths_are_seen_from_the_studys_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "studies").mkdir()
    assert relative_to("data/a.csv", Path("studies")) == "../data/a.csv"
    assert relative_to(str(tmp_path / "data/a.csv"), Path()) == "data/a.csv"
    assert relative_to("/elsewhere/a.csv", Path()) == "/elsewhere/a.csv"


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").touch()
    assert model_spec("model", Path("sub")) == "../model"
    assert model_spec("org/name@main", Path("sub")) == "org/name@main"
    with pytest.raises(ConfigError, match=r"--model: no file .*gone\.gguf"):
        model_spec("gone.gguf", Path())
