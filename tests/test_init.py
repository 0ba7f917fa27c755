"""``autotune init`` as a user runs it; what it writes runs unchanged."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autotune.config import load_config
from tests import studies, tiny

COMMAND = [sys.executable, "-m", "autotune", "init"]
THINGS = {"Rechnung": "Betrag", "Versand": "Paket", "Störung": "Absturz"}


def init(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=studies.environment(),
                          cwd=folder, timeout=60, stdin=subprocess.DEVNULL)


def write_csv(path: Path, count: int = 120) -> None:
    lines = ["Ticket-Nr;Kanal;Die Anfrage, wie gesagt;Kategorie"]
    for i in range(count):
        kind = list(THINGS)[i % 3]
        lines.append(f'{1000 + i};Mail;"Guten Tag; {THINGS[kind]}, {{{i}}}";{kind}')
    path.write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("init")
    tiny.make_model(found / "model")
    write_csv(found / "anfragen.csv")
    for split, count in {"train": 60, "val": 20, "test": 20}.items():
        rows = studies.rows(count, len(split))
        (found / f"tone_{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return found


def test_it_says_what_it_took_and_why_and_what_to_run_next(folder: Path) -> None:
    done = init(folder, "anfragen.csv", "--model", "model", "--out", "said/study.yaml", "--target-latency", "400")
    assert done.returncode == 0, done.stderr
    for said in ("answer   Kategorie: its name", "prompt   Die Anfrage, wie gesagt: ",
                 "choice of 3 labels: Rechnung 33%",
                 "not used Ticket-Nr: another in every row", "not used Kanal: the same in every row",
                 "valid and test will be cut", "Next: autotune run said/study.yaml --dry-run"):
        assert said in done.stdout
    study = load_config(folder / "said/study.yaml").file
    assert (study.model, study.data.train) == ("../model", "../anfragen.csv")
    assert study.constraints == ("latency_ms.p95 <= 400",)
    assert set(study.data.labels or ()) == set(THINGS)


def test_the_study_runs_unchanged(folder: Path) -> None:
    assert init(folder, "anfragen.csv", "--model", "model").returncode == 0
    done = studies.run(folder / "study.yaml", folder / "run", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["adapters"], len(plan["deploy_points"])) == (4, 3)


def test_files_of_the_other_splits_are_found_and_a_program_can_read_it(folder: Path) -> None:
    done = init(folder, "tone_train.jsonl", "--model", "model", "--out", "tone.yaml", "--json", "--min-accuracy", "0.5")
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["files"] == {"train": "tone_train.jsonl", "valid": "tone_val.jsonl", "test": "tone_test.jsonl"}
    assert found["rows"] == {"train": 60, "valid": 20, "test": 20}
    assert (found["name"], found["task"], found["prompt_columns"], found["answer_column"]) == (
        "tone", "choice", ["phrase"], "tone")
    assert found["constraints"] == ["accuracy >= 0.5"]
    assert load_config(folder / "tone.yaml").file.name == "tone"


def test_nothing_is_overwritten_without_being_told(folder: Path) -> None:
    (folder / "mine.yaml").write_text("mine")
    arguments = ("anfragen.csv", "--model", "model", "--out", "mine.yaml")
    done = init(folder, *arguments)
    assert done.returncode == 2
    assert "it exists already; accepted: another --out, or --force" in done.stderr
    assert (folder / "mine.yaml").read_text() == "mine"
    assert init(folder, *arguments, "--force").returncode == 0
    assert load_config(folder / "mine.yaml")


@pytest.fixture
def unclear(tmp_path: Path) -> Path:
    rows = [{"left": f"some words {i}", "right": f"other words {i}"} for i in range(60)]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    tiny.make_model(tmp_path / "model")
    return tmp_path


def test_what_is_not_clear_needs_a_word(unclear: Path) -> None:
    done = init(unclear, "pairs.json", "--model", "model")
    assert done.returncode == 2
    assert "--answer-column: right is only a guess: it is the last text; accepted: one of left, right" in done.stderr
    assert not (unclear / "study.yaml").exists()
    said = init(unclear, "pairs.json", "--model", "model", "--answer-column", "left", "--task", "generate")
    assert said.returncode == 0, said.stderr
    data = load_config(unclear / "study.yaml").file.data
    assert (data.answer, data.task, data.prompt) == ("{left}", "generate", "### Right: {right}\n### Left:\n")
    assert init(unclear, "pairs.json", "--model", "model", "--yes", "--out", "guess.yaml").returncode == 0


def test_at_a_terminal_it_asks_and_asks_again(unclear: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*COMMAND, "pairs.json", "--model", "model"], stdin=theirs, stdout=theirs, stderr=theirs,
                               env={**studies.environment(), "TERM": "dumb"}, cwd=unclear)
    os.close(theirs)
    os.write(ours, b"lift\nleft\n2\n\n250\n\n")  # a typo, then the column; no such share, then none; ms; no size
    said = ""
    while process.poll() is None or not said.endswith("\n"):
        try:
            said += os.read(ours, 4096).decode()
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait(30) == 0, said
    assert "no 'lift', did you mean 'left'?" in said
    assert "2; accepted: 0 to 1" in said
    study = load_config(unclear / "study.yaml").file
    assert (study.data.answer, study.constraints) == ("{left}", ("latency_ms.p95 <= 250",))


def test_rows_that_a_run_would_refuse_are_said_now(folder: Path) -> None:
    (folder / "holes.jsonl").write_text("\n".join(
        json.dumps({"text": f"some words {i}", "tone": "" if i == 7 else ["joy", "fear"][i % 2]}) for i in range(60)))
    done = init(folder, "holes.jsonl", "--model", "model", "--out", "holes.yaml")
    assert done.returncode == 2
    assert "holes.jsonl: line 8: 'tone' is empty" in done.stderr


def test_wrong_words_are_named_by_option(folder: Path) -> None:
    done = init(folder, "anfragen.csv", "--model", "nowhere", "--out", "wrong.yaml")
    assert done.returncode == 2
    assert "--model: 'nowhere' names no folder or file here" in done.stderr
    done = init(folder, "anfragen.csv", "--answer-column", "kategorie", "--prompt-column", "Kanale", "--out", "w.yaml")
    assert done.returncode == 2
    assert "--prompt-column: no column 'Kanale' in anfragen.csv, did you mean 'Kanal'?" in done.stderr
    assert "--answer-column: no column 'kategorie' in anfragen.csv, did you mean 'Kategorie'?" in done.stderr
