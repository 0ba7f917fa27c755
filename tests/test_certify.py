"""The certificate at the end of ``autotune run``: real artifacts, real timings, rows that the search never saw."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from autotune.report.results import schema
from tests import studies

#: Short timings: enough requests for a median, of which the tiny model answers hundreds a second.
TARGET = {"provider": "cpu", "threads": 1, "workload": {"prompt_tokens": 12, "new_tokens": 3, "samples": 6}}
ONE = {"finalists": 1, "time": "5s"}
HELD = {"constraints": ["accuracy >= 0.05", "size_mb <= 40"], "certificate": {"finalists": 2, "time": "5s"},
        "budget": {"adapters": 1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certified")


@pytest.fixture(scope="module")
def certified(folder: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    done = studies.run(studies.write_study(folder, target=TARGET, **HELD), folder / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run", done


def looks(found: dict[str, Any]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = found["certificate"]["looks"]
    return listed


def stages_of(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return [e for e in lines if e["event"] == "stage_end"]


def test_the_selected_model_carries_its_certificate(certified: tuple[Path, Any]) -> None:
    found = studies.results(certified[0])
    jsonschema.validate(found, schema())
    assert found["selected"]["certificate"] == found["certificate"]
    assert found["certificate"]["verdict"] == "PASS"
    assert found["certificate"]["trial"] == found["selected"]["trial"] == looks(found)[-1]["trial"]
    assert "Certified: trial" in certified[1].stdout
    assert "On 48 rows that the search never saw" in certified[1].stdout
    assert "So accuracy >= 0.05 and size_mb <= 40 hold, with " in certified[1].stdout


def test_everything_was_measured_anew_on_the_artifact_in_the_certifying_tier(certified: tuple[Path, Any]) -> None:
    values = looks(studies.results(certified[0]))[-1]["values"]
    assert {"accuracy", "macro_f1", "latency_ms.p50", "latency_ms.p95", "ttft_ms.p50", "peak_rss_mb", "load_ms",
            "size_mb"} <= set(values)
    assert {(v["measured_on"], v["tier"]) for v in values.values()} == {("artifact", "certify")}
    assert values["accuracy"]["n"] == 48
    assert values["latency_ms.p50"]["n"] >= 50
    assert [e["cached"] for e in stages_of(certified[0]) if e["stage"] == "certify"] == [False] * 2


def test_the_answers_were_given_to_the_test_rows_texts(certified: tuple[Path, Any]) -> None:
    out = certified[0]
    found = studies.results(out)
    rows = [json.loads(line) for line in (out.parent / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    with (out / "predictions" / f"certificate-trial-{found['selected']['trial']}.csv").open(encoding="utf-8") as file:
        told = list(csv.DictReader(file))
    assert [t["reference"] for t in told] == [row["tone"] for row in rows]
    right = sum(int(t["right"]) for t in told)
    assert looks(found)[-1]["values"]["accuracy"]["value"] == pytest.approx(right / 48)


def test_what_the_timing_was_made_on_stands_in_the_record(certified: tuple[Path, Any]) -> None:
    timing = looks(studies.results(certified[0]))[-1]["timing"]
    assert timing["reference"] == "int4-b32"
    assert timing["ratios"]["latency_ms.p50"]["value"] > 0
    assert timing["asked"]["samples"] >= 50
    assert timing["probe"]["settings"]["threads"] == 1
    assert {"cpu", "governor"} <= set(timing["probe"]["machine"])
    assert timing["probe"]["versions"]["onnxruntime_genai"]


def test_its_logits_were_held_against_the_adapted_model_in_pytorch(certified: tuple[Path, Any]) -> None:
    logits = looks(studies.results(certified[0]))[-1]["logits"]
    assert logits["n"] == 8
    assert 0 <= logits["relative"] < 1
    assert 0 <= logits["top1_agree"] <= 8


def test_a_certificate_that_passed_stands_while_what_it_rests_on_does(
    certified: tuple[Path, Any], folder: Path
) -> None:
    out = certified[0]
    before = studies.results(out)["certificate"]
    again = studies.run(studies.write_study(folder, target=TARGET, **HELD), out)
    assert again.returncode == 0, again.stderr
    assert "Certified before" in again.stdout
    assert studies.results(out)["certificate"] == before
    other = studies.run(studies.write_study(folder, target=TARGET, **{**HELD, "certificate": ONE}), out)
    assert other.returncode == 0, other.stderr
    assert "Certified before" not in other.stdout
    assert studies.results(out)["certificate"] != before


def test_the_store_has_no_part_in_a_certificate(certified: tuple[Path, Any], folder: Path) -> None:
    done = studies.run(studies.write_study(folder, target=TARGET, **HELD), folder / "second")
    assert done.returncode == 0, done.stderr
    made = [e["stage"] for e in stages_of(folder / "second") if not e["cached"]]
    assert made == ["certify", "certify"]


def test_limits_that_so_few_rows_cannot_settle_end_with_exit_4_and_say_how_many_would(
    certified: tuple[Path, Any], folder: Path
) -> None:
    accuracy = looks(studies.results(certified[0]))[-1]["values"]["accuracy"]
    valid = max(t["values"]["accuracy"]["value"] for t in studies.results(certified[0])["trials"])
    limit = min(valid, accuracy["value"] - 0.02)
    done = studies.run(studies.write_study(folder, target=TARGET, **{
        **HELD, "constraints": [f"accuracy >= {limit:.3f}"], "certificate": ONE}), folder / "open")
    assert done.returncode == 4, done.stdout + done.stderr
    found = studies.results(folder / "open")
    jsonschema.validate(found, schema())
    assert found["certificate"]["verdict"] == "INCONCLUSIVE"
    assert found["selected"]["trial"] == found["certificate"]["trial"]
    needed = looks(found)[0]["constraints"][0]["n_to_settle"]
    assert needed is None or needed > 48
    assert "Not settled: trial" in done.stdout
    assert "test rows would settle it" in done.stdout


def test_a_limit_that_only_the_validation_rows_met_ends_with_exit_3_and_what_to_relax(
    certified: tuple[Path, Any], folder: Path
) -> None:
    """The test rows' tones are exchanged, so what is right on the validation rows is wrong on them."""
    turned = {"joy": "fear", "fear": "sadness", "sadness": "joy"}
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps({**row, "tone": turned[row["tone"]]}) for row in rows]
    (folder / "turned.jsonl").write_text("\n".join(lines), encoding="utf-8")
    valid = max(t["values"]["accuracy"]["value"] for t in studies.results(certified[0])["trials"])
    data = {**studies.study()["data"], "test": "turned.jsonl"}
    study = studies.write_study(folder, target=TARGET, data=data, **{
        **HELD, "constraints": [f"accuracy >= {valid - 0.01:.3f}"]})
    done = studies.run(study, folder / "failed")
    assert done.returncode == 3, done.stdout + done.stderr
    found = studies.results(folder / "failed")
    jsonschema.validate(found, schema())
    assert found["selected"] is None
    assert found["certificate"]["verdict"] == "FAIL"
    assert found["nearest_miss"]["expr"] == f"accuracy >= {valid - 0.01:.3f}"
    assert "Nothing is certified: measured again, none of" in done.stdout
    assert "; relax it to " in done.stdout


@pytest.mark.parametrize("baseline", ["tuned", "base"])
def test_limits_may_be_relative_to_a_baseline(certified: tuple[Path, Any], folder: Path, baseline: str) -> None:
    limits = ["accuracy >= 0.2 * baseline", "latency_ms.p50 <= 50 * baseline", "size_mb <= 0.9 * baseline"]
    done = studies.run(studies.write_study(folder, target=TARGET, **{
        **HELD, "constraints": limits, "baseline": baseline, "certificate": ONE}), folder / baseline)
    assert done.returncode in (0, 4), done.stdout + done.stderr
    found = studies.results(folder / baseline)
    jsonschema.validate(found, schema())
    bounds = {c["objective"]: c for c in found["constraints"]}
    fp16 = next(p for p in found["deploy_points"] + found["dropped"] if p["label"] == "fp16")
    assert bounds["size_mb"]["bound"] == pytest.approx(0.9 * bounds["size_mb"]["baseline"])
    assert fp16["values"]["size_mb"]["value"] < bounds["size_mb"]["baseline"]  # the baseline is at fp32
    compared = {c["expr"]: c for c in looks(found)[0]["constraints"]}
    assert compared[limits[0]]["compared"] == "accuracy less 0.2 × the baseline's"
    assert compared[limits[0]]["n"] == 48
    assert compared[limits[1]]["compared"] == "latency_ms.p50 as a share of the baseline's"
    assert compared[limits[1]]["bound"] == 50
    assert looks(found)[0]["timing"]["reference"] == "fp32"  # what the limit is relative to
    assert (folder / baseline / "predictions" / "certificate-baseline.csv").exists()


def test_a_limit_on_answers_asks_the_baseline_and_does_not_time_it(certified: tuple[Path, Any], folder: Path) -> None:
    limits = ["macro_f1 >= 0.1 * baseline", "accuracy >= baseline - 0.9"]
    done = studies.run(studies.write_study(folder, target=TARGET, **{
        **HELD, "constraints": limits, "certificate": ONE}), folder / "answers")
    assert done.returncode in (0, 4), done.stdout + done.stderr
    held = {c["expr"]: c for c in looks(studies.results(folder / "answers"))[0]["constraints"]}
    assert held[limits[0]]["compared"] == "macro_f1 less 0.1 × the baseline's"
    assert held[limits[1]]["verdict"] == "PASS"
    made = {e["key"] for e in stages_of(folder / "answers") if e["stage"] == "certify"}
    assert "certify/asking baseline the test rows" in made
    assert "certify/timing the baseline" not in made
