"""study.yaml: everything wrong is said at once, by field, with the nearest name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotune.config import load_config
from autotune.errors import ConfigError
from autotune.study_file import parse_duration
from tests import studies

GOOD = """
name: tone
model: org/name
data:
  train: train.jsonl
  prompt: "{phrase}"
  answer: "{tone}"
  task: choice
target: {provider: cpu, threads: 2, workload: {prompt_tokens: 18, new_tokens: 2}}
space:
  adapter: {rank: [4, 8], learning_rate: {low: 1.0e-4, high: 1.0e-3, log: true}}
  deploy: [{precision: [int8, int4]}]
objectives: [accuracy, latency_ms.p95]
constraints: ["accuracy >= 0.5", "size_mb <= 300"]
budget: {adapters: 2, time: 1h30m}
"""


def write(folder: Path, text: str) -> Path:
    (folder / "train.jsonl").write_text("{}")
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text))
    return {p.where: f"{p.found}; {p.accepted}" for p in caught.value.problems}


def test_a_good_study_is_typed_and_frozen(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert [key for key, _ in config.objectives] == ["accuracy", "latency_ms.p95"]
    assert [p.label for p in config.space.deploy] == ["int8-b32", "int4-b32"]
    assert config.time_s == 5400
    assert set(config.measured()) == {"accuracy", "latency_ms.p95", "size_mb"}
    with pytest.raises(ValueError, match="frozen"):
        config.file.name = "other"


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace("task: choice", "task: choise")
        .replace("threads: 2", "treads: 2")
        .replace("prompt_tokens: 18", "prompt_tokens: eight")
        .replace("rank: [4, 8]", "rnak: [4, 8]")
        .replace("int8, int4", "int8, int5")
        .replace("latency_ms.p95]", "latency_sm.p95]")
        .replace("accuracy >= 0.5", "accuracy > 0.5")
        .replace("size_mb <= 300", "size_mb <= 300MB")
        .replace("time: 1h30m", "time: soon")
        .replace("train: train.jsonl", "train: trian.jsonl")
        .replace("model: org/name", "model: package:no_such_package")
    )
    found = problems(tmp_path, text)
    assert "did you mean 'choice'" in found["data.task"]
    assert "did you mean 'threads'" in found["target.treads"]
    assert "required" in found["target.threads"]
    assert "whole number" in found["target.workload.prompt_tokens"]
    assert "did you mean 'rank'" in found["space.adapter.rnak"]
    assert "did you mean 'int4'" in found["space.deploy[0].precision"] or "int8" in found["space.deploy[0].precision"]
    assert "did you mean 'latency_ms'" in found["objectives[1]"]
    assert "compares with '>'" in found["constraints[0]"]
    assert "300MB" in found["constraints[1]"]
    assert "no_such_package" in found["model"]
    assert "15m" in found["budget.time"]
    assert "trian.jsonl" in found["data.train"]


@pytest.mark.parametrize(("old", "new", "where"), [
    ("name: tone", "name: tone\nname: tone2", "line 3"),
    ("objectives: [accuracy, latency_ms.p95]", "objectives: []", "objectives"),
    ("objectives: [accuracy, latency_ms.p95]", "objectives: [exact_match]", "objectives[0]"),
    ("objectives: [accuracy, latency_ms.p95]", "objectives: [accuracy, accuracy]", "objectives[1]"),
    ('"accuracy >= 0.5"', '"accuracy >= 78"', "constraints[0]"),
    ("{prompt_tokens: 18, new_tokens: 2}", "{prompt_tokens: 8}", "target.workload"),
    ("threads: 2", "threads: true", "target.threads"),
    ('prompt: "{phrase}"', 'prompt: "{phrase"', "data.prompt"),
    ('answer: "{tone}"', "answer: tone", "data.answer"),
    ('answer: "{tone}"', "answer: {{tone}}", "line 7"),
    ("threads: 2", "threads: 2, context_length: 16", "target.context_length"),
    ("task: choice", "task: generate\n  labels: [a, b]", "data.labels"),
    ("task: choice", "task: choice\n  labels: [a, a]", "data.labels"),
    ("{prompt_tokens: 18, new_tokens: 2}", "{prompt_tokens: 8, from: valid}", "target.workload.prompt_tokens"),
    ("{adapters: 2, time: 1h30m}", "{adapters: 0}", "budget.adapters"),
    ("deploy: [{precision: [int8, int4]}]", "deploy: [{precision: fp16, block_size: 32}]",
     "space.deploy[0].block_size"),
    ("deploy: [{precision: [int8, int4]}]", "deploy: []", "space.deploy"),
    ("rank: [4, 8]", "rank: {low: 8, high: 4}", "space.adapter.rank"),
    ("rank: [4, 8]", "rank: [4, 8], alpha: 8, scale: 1", "space.adapter.scale"),
    ("rank: [4, 8]", "targets: atention", "space.adapter.targets"),
])
def test_each_mistake_names_its_field(tmp_path: Path, old: str, new: str, where: str) -> None:
    assert where in problems(tmp_path, GOOD.replace(old, new))


@pytest.mark.parametrize("content", [b"", b"- a\n", b"a: [", b"\xff\xfe"])
def test_what_is_no_study_at_all_is_a_message(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")


def test_the_budget_does_not_change_what_a_run_folder_belongs_to(tmp_path: Path) -> None:
    one = load_config(write(tmp_path, GOOD)).sha256()
    assert load_config(write(tmp_path, GOOD.replace("adapters: 2", "adapters: 9"))).sha256() == one
    assert load_config(write(tmp_path, GOOD.replace("rank: [4, 8]", "rank: [4]"))).sha256() != one


def test_own_metrics_and_directions_are_accepted(tmp_path: Path) -> None:
    text = GOOD.replace("[accuracy, latency_ms.p95]", "[{metric: 'mine:loss', direction: minimize}, size_mb]")
    assert load_config(write(tmp_path, text)).objectives[0][1].direction == "minimize"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h30m", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "0s", "15", "-3m"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


def test_workers_are_a_name_or_a_mapping(tmp_path: Path) -> None:
    def ray(given: Any) -> Any:
        return load_config(studies.write_study(tmp_path, workers=given)).file.workers.ray

    assert ray("local") is None
    assert ray("ray") == ray({"ray": None}) == ray({"ray": {"count": 2}})
    asked = ray({"ray": {"address": "auto", "resources": {"probe": {"device:pi": 1}, "train": {"gpu": 0.5}}}})
    assert asked.resources.train == {"gpu": 0.5}


@pytest.mark.parametrize(("changes", "where", "found"), [
    ({"workers": "rey"}, "workers", "did you mean 'ray'"),
    ({"workers": {"ray": {"cout": 3}}}, "workers.ray.cout", "did you mean 'count'"),
    ({"workers": {"ray": {"count": 0}}}, "workers.ray.count", "0"),
    ({"workers": {"ray": {"resources": {"probe": {"device:pi": 2}}}}}, "workers.ray.resources.probe.device:pi", "2"),
    ({"workers": {"ray": {"resources": {"train": {"gpu": -1}}}}}, "workers.ray.resources.train.gpu", "-1"),
    ({"storage": "postgres://me:secret@db/a"}, "storage", "postgres://me:***@db/a"),
])
def test_what_is_wrong_with_workers_and_storage_is_named(
    tmp_path: Path, changes: dict[str, Any], where: str, found: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(studies.write_study(tmp_path, **changes))
    problem, = caught.value.problems
    assert problem.where == where
    assert found in problem.found
    assert "secret" not in str(problem)
