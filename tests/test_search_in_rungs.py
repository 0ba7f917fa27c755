"""A study that trains in rungs, by the real command: who is stopped says where and why, steps are counted once."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import studies

FRACTIONS = (0.2, 0.4, 1)
ADAPTERS = 6


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("study")
    space = {**studies.study()["space"]["adapter"], "learning_rate": {"low": 1e-5, "high": 2e-2, "log": True},
             "epochs": 4}
    changes: dict[str, Any] = {
        "rungs": list(FRACTIONS), "budget": {"adapters": ADAPTERS},
        "space": {"adapter": space, "deploy": [{"precision": ["int8", "int4"]}]}}
    done = studies.run(studies.write_study(folder, **changes), folder / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run", done


def stages(run: Path, *names: str) -> list[dict[str, Any]]:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    return [e for e in events if e["event"] == "stage_end" and e["stage"] in names]


def test_an_adapter_that_was_stopped_says_at_which_rung_on_what_evidence(finished) -> None:  # type: ignore[no-untyped-def]
    run, done = finished
    adapters = studies.results(run)["adapters"]
    assert len(adapters) == ADAPTERS
    stopped = [a for a in adapters if a["state"] == "stopped"]
    assert stopped
    assert len(stopped) < ADAPTERS
    for adapter in stopped:
        rung = adapter["rungs"][-1]
        assert rung["fraction"] < 1
        assert adapter["trials"] == []
        share = {0.2: "1/5", 0.4: "2/5"}[rung["fraction"]]
        assert adapter["reason"].startswith(f"stopped at {share} of its steps: ")
        assert adapter["reason"] in " ".join(done.stdout.split())


def test_those_that_went_on_were_judged_on_the_way_and_scored_as_artifacts(finished) -> None:  # type: ignore[no-untyped-def]
    run, _ = finished
    found = studies.results(run)
    whole = [a for a in found["adapters"] if a["state"] == "complete"]
    assert whole
    scored = {n for a in whole for n in a["trials"]}
    assert scored == {t["number"] for t in found["trials"]}
    assert set(found["front"]) <= scored
    for adapter in whole:
        fractions = [r["fraction"] for r in adapter["rungs"]]
        assert fractions[0] == FRACTIONS[0]
        assert fractions[-1] == 1
        assert adapter["rungs"][0]["rows"] == 18  # all validation rows, as there are fewer than 64
        assert 0 <= adapter["rungs"][0]["right"]["int8-b32"] <= 18


def test_every_step_was_trained_once(finished) -> None:  # type: ignore[no-untyped-def]
    run, _ = finished
    reached = sum(len(a["rungs"]) for a in studies.results(run)["adapters"])
    assert len(stages(run, "rung", "train")) == reached
    assert len({e["key"] for e in stages(run, "rung", "train")}) == reached
    store = run.parent / "store"
    steps = {a["rungs"][-1]["step"] for a in studies.results(run)["adapters"] if a["state"] == "complete"}
    lengths = {len(json.loads(f.read_text(encoding="utf-8"))["losses"]) for f in store.glob("adapter/*/training.json")}
    assert steps <= lengths


def test_the_report_shows_what_became_of_each_adapter(finished) -> None:  # type: ignore[no-untyped-def]
    run, _ = finished
    report = (run / "report.html").read_text(encoding="utf-8")
    for adapter in studies.results(run)["adapters"]:
        if adapter["reason"]:
            assert adapter["reason"].split(",")[0] in report


def test_a_later_run_begins_with_the_best_of_this_one_and_makes_nothing_twice(finished) -> None:  # type: ignore[no-untyped-def]
    run, _ = finished
    folder = run.parent
    best = next(t for t in studies.results(run)["trials"] if t["on_front"])
    done = studies.run(folder / "study.yaml", folder / "later", "--warm-start", str(run), "--trials", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warm start: 4 adapters of " in done.stdout
    first = [a["params"] for a in studies.results(folder / "later")["adapters"][:4]]
    assert any(p["learning_rate"] == best["params"]["learning_rate"] for p in first)
    made = {e["key"] for e in stages(run, "rung", "train")}
    again = [e for e in stages(folder / "later", "rung", "train") if e["key"] in made]
    assert again
    assert all(e["cached"] for e in again)
    refused = studies.run(folder / "study.yaml", folder / "other", "--warm-start", str(folder))
    assert refused.returncode == 2
    assert "--warm-start" in refused.stderr
    assert "accepted: the folder of an earlier run" in refused.stderr
