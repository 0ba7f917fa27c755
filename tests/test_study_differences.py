"""What differs between runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from autotune.comparing.study_differences import (
    environment_differences,
    flat,
    is_of_the_target,
    study_differences,
    target_differences,
)
from autotune.finished import FinishedRun, read_run
from tests import finished_runs, studies


def run(folder: Path, study: dict[str, Any] | None = None, **environment: Any) -> FinishedRun:
    finished_runs.write(folder, environment={**finished_runs.document()["environment"], **environment})
    (folder / "study.yaml").write_text(yaml.safe_dump({**studies.study(), **(study or {})}), encoding="utf-8")
    return read_run(folder)


def test_nested_keys_are_dotted_and_recipes_counted() -> None:
    assert flat({"a": {"b": [1, 2], "c": {}}, "d": [{"e": "x"}, {"f": None}]}) == {
        "a.b": "[1, 2]", "a.c": "{}", "d[0].e": "x", "d[1].f": "null"}


def test_each_key_that_differs_is_one_line(tmp_path: Path) -> None:
    changed = {"seed": 3, "budget": {"adapters": 5}}
    found = study_differences([run(tmp_path / "a"), run(tmp_path / "b", changed), run(tmp_path / "c")])
    assert [(d.where, d.values) for d in found] == [
        ("budget.adapters", ("2", "5", "2")), ("seed", ("not set", "3", "not set"))]


def test_machines_and_libraries(tmp_path: Path) -> None:
    found = environment_differences([run(tmp_path / "a"), run(tmp_path / "b", libraries={"torch": "3.0.0"})])
    assert {d.where: d.values for d in found} == {
        "libraries.torch": ("2.13.0", "3.0.0"), "libraries.onnxruntime": ("1.32.0", "not set")}


def test_a_target_is_the_machine_and_what_is_asked_of_it(tmp_path: Path) -> None:
    workload = {"prompt_tokens": 12, "new_tokens": 3, "samples": 99}
    one = run(tmp_path / "a")
    assert not target_differences([one, run(tmp_path / "b", {
        "target": {"provider": "cpu", "threads": 1, "workload": workload}}, memory_gb=1)])
    other = run(tmp_path / "c", {"target": {"provider": "cpu", "threads": 4, "workload": workload}}, cpu="another")
    assert [(d.where, d.told(["a", "c"])) for d in target_differences([one, other])] == [
        ("target.threads", "1 in a, 4 in c"), ("environment.cpu", "a processor in a, another in c")]


def test_the_machine_of_a_target_is_the_device_that_was_measured_on(tmp_path: Path) -> None:
    board = {"host": "pi", "cpu": "a board", "cores": 4, "platform": "Linux"}
    runs = [run(tmp_path / "a", device=board), run(tmp_path / "b", device=board, cpu="another desk")]
    assert not target_differences(runs)
    found = {d.where: d.values for d in target_differences([runs[0], run(tmp_path / "c")])}
    assert found["environment.cpu"] == ("a board", "a processor")


def test_times_and_memory_are_of_a_target_answers_and_size_are_not() -> None:
    assert [key for key in ("latency_ms.p50", "tokens_per_s", "peak_rss_mb", "load_ms", "accuracy", "size_mb", "my:own")
            if is_of_the_target(key)] == ["latency_ms.p50", "tokens_per_s", "peak_rss_mb", "load_ms"]


def test_a_data_key_is_read_where_it_was_kept(tmp_path: Path) -> None:
    assert run(tmp_path / "a").data_key is None
    (tmp_path / "a" / "inputs.json").write_text(json.dumps({"data": "data/1"}), encoding="utf-8")
    assert read_run(tmp_path / "a").data_key == "data/1"
