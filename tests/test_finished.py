"""A run folder read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotune.errors import ConfigError
from autotune.finished import read_run
from tests import finished_runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return finished_runs.write(tmp_path / "run")


def test_what_was_written_is_read(folder: Path) -> None:
    run = read_run(folder)
    assert run.objectives == (("accuracy", "maximize"), ("latency_ms.p50", "minimize"), ("size_mb", "minimize"))
    assert [c.expr for c in run.constraints] == ["accuracy >= 0.6", "latency_ms.p95 <= 600"]
    assert run.front == (0, 2)
    assert run.selected == 2
    chosen = run.trial(2)
    assert (chosen.values["accuracy"].value, chosen.values["accuracy"].n) == (0.75, 128)
    assert chosen.values["latency_ms.p50"].unit == "ms"
    assert run.study["name"] == "tone"


def test_a_relative_limit_keeps_its_number(tmp_path: Path) -> None:
    run = read_run(finished_runs.write(tmp_path / "run", constraints=[
        {"expr": "accuracy >= baseline - 0.1", "objective": "accuracy", "op": ">=", "unit": "", "bound": 0.65,
         "baseline": 0.75}]))
    assert run.constraints[0].bound == pytest.approx(0.65)


def test_an_artifact_that_is_gone_is_none(folder: Path) -> None:
    assert read_run(folder).trial(2).artifact is None
    (folder / "artifacts" / "trial-2").mkdir(parents=True)
    assert read_run(folder).trial(2).artifact == folder.resolve() / "artifacts" / "trial-2"


def test_a_last_event_cut_short_is_skipped(folder: Path) -> None:
    (folder / "events.jsonl").write_text('{"event": "run_start", "time": 1}\n{"event": "sta', encoding="utf-8")
    assert read_run(folder).events() == [{"event": "run_start", "time": 1}]


@pytest.mark.parametrize(("text", "found"), [
    ("{", "no JSON"), ('{"schema": "autotune/results@9"}', "autotune/results@9"),
    ('{"schema": "autotune/results@1"}', "damaged"), ("[]", "None"),
])
def test_what_is_no_result_is_named(folder: Path, text: str, found: str) -> None:
    (folder / "results.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=found) as caught:
        read_run(folder)
    assert "results.json" in str(caught.value)


def test_no_run_and_no_trial_are_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        read_run(folder / "nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no results\.json"):
        read_run(folder / "empty")
    with pytest.raises(ConfigError, match="trial 9: no such trial; accepted: 0 to 3"):
        read_run(folder).trial(9)


def test_the_written_run_holds_to_the_schema(folder: Path) -> None:
    import jsonschema

    from autotune.report.results import schema

    jsonschema.validate(json.loads((folder / "results.json").read_text(encoding="utf-8")), schema())
