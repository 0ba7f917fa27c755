"""``autotune run`` as a user runs it: real training, ModelBuilder, ONNX Runtime GenAI and SQLite."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import optuna
import pandas as pd
import pytest

from autotune.report.results import schema
from tests import studies

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("study")
    done = studies.run(studies.write_study(folder), folder / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run", done


def test_every_adapter_is_trained_once_and_scored_at_every_deploy_point(finished) -> None:  # type: ignore[no-untyped-def]
    found = studies.results(finished[0])
    complete = [t for t in found["trials"] if t["state"] == "COMPLETE"]
    assert len(complete) == 6
    assert {(t["adapter"], t["deploy_point"]) for t in complete} == {
        (a, d) for a in {t["adapter"] for t in complete} for d in ("fp16", "int8-b32", "int4-b32")}
    assert found["cost"]["adapters_trained"] == 2
    cost = found["cost"]
    assert (cost["templates_built"], cost["points_built"], cost["artifacts_built"]) == (1, 4, 6)  # and the base at fp32
    assert (cost["probes"], cost["scorings"]) == (3, 7)


def test_results_hold_their_schema_and_every_number_its_n(finished) -> None:  # type: ignore[no-untyped-def]
    found = studies.results(finished[0])
    jsonschema.validate(found, schema())
    for trial in found["trials"]:
        assert {"accuracy", "macro_f1", "ttft_ms.p50", "tpot_ms.p95", "latency_ms.p50", "tokens_per_s.p50",
                "peak_rss_mb", "load_ms", "size_mb"} <= set(trial["values"])
        assert trial["values"]["accuracy"]["n"] == 18
        assert trial["values"]["latency_ms.p50"]["n"] >= 6
        low, high = trial["values"]["accuracy"]["low"], trial["values"]["accuracy"]["high"]
        assert low < trial["values"]["accuracy"]["value"] < high or low == 0 or high == 1
    smallest = min(found["deploy_points"], key=lambda point: point["values"]["size_mb"]["value"])
    for point in found["deploy_points"]:
        timing = point["timing"]
        assert timing["sentence"]
        if point is smallest:
            assert (timing["reference"], timing["ratios"]) == (None, {})
            continue
        assert timing["reference"] == smallest["label"]
        assert {"latency_ms.p50", "ttft_ms.p50", "tpot_ms.p50"} <= set(timing["ratios"])
    assert found["baseline"]["logits"]["ok"]
    assert found["baseline"]["values"]["accuracy"]["measured_on"] == "base"


def test_the_schema_refuses_what_a_reader_could_not_trust(finished) -> None:  # type: ignore[no-untyped-def]
    found = studies.results(finished[0])
    for spoil in (lambda t: t.update(state="DONE"), lambda t: t["values"]["accuracy"].pop("n"),
                  lambda t: t.update(values={}), lambda t: t.update(state="FAILED")):
        damaged = json.loads(json.dumps(found))
        spoil(damaged["trials"][0])
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(damaged, schema())


def test_front_and_selection_follow_from_the_trials(finished) -> None:  # type: ignore[no-untyped-def]
    found = studies.results(finished[0])
    front = [t for t in found["trials"] if t["on_front"]]
    assert [t["number"] for t in front] == found["front"]
    chosen = next(t for t in front if t["number"] == found["selected"]["trial"])
    assert chosen["feasible"]
    assert chosen["values"]["accuracy"]["value"] == max(t["values"]["accuracy"]["value"] for t in front)


def test_only_the_fronts_artifacts_stay_and_they_run_in_stock_onnxruntime_genai(finished) -> None:  # type: ignore[no-untyped-def]
    out = finished[0]
    found = studies.results(out)
    kept = {t["artifact"] for t in found["trials"] if t["artifact"]}
    assert kept == {f"artifacts/trial-{n}" for n in found["front"]}
    assert {f"artifacts/{p.name}" for p in (out / "artifacts").iterdir()} == kept
    script = next(block for block in code_blocks("python") if "onnxruntime_genai" in block)
    for artifact in kept:
        answer = subprocess.run([sys.executable, "-c", script, str(out / artifact), "sun sing cake"],
                                capture_output=True, text=True, timeout=60)
        assert answer.returncode == 0, answer.stderr
        assert "The tone is:" in answer.stdout


def test_the_database_shows_people_two_studies_with_names_they_know(finished) -> None:  # type: ignore[no-untyped-def]
    storage = f"sqlite:///{finished[0] / 'study.db'}"
    visible = optuna.load_study(study_name="tiny", storage=storage)
    assert visible.metric_names == ["accuracy", "latency_ms.p50", "size_mb"]
    assert [d.name for d in visible.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    assert {"rank", "learning_rate", "targets", "precision"} <= set(visible.trials[0].params)
    assert set(visible.trials[0].constraints) == {"accuracy >= 0.1", "size_mb <= 40"}
    proposals = optuna.load_study(study_name="tiny/proposals", storage=storage)
    assert [t.state.name for t in proposals.trials] == ["COMPLETE", "COMPLETE"]
    assert "precision" not in proposals.trials[0].params
    assert proposals.metric_names == ["accuracy at the largest", "accuracy at the smallest"]
    words = visible.trials[0].user_attrs
    assert re.fullmatch(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\] \(n = 18\)", words["accuracy"])
    assert {"adapter", "deploy_point", "latency_ms.p95", "peak_rss_mb", "feasible", "size_mb <= 40"} <= set(words)
    assert all(isinstance(text, str) for text in words.values())
    assert visible.user_attrs["outcome"].startswith("Chosen: trial")
    assert visible.user_attrs["baseline"].startswith("untrained base at fp32: accuracy 0.")
    assert "choose from are in tiny" in proposals.user_attrs["about"]


def test_the_terminal_shows_a_line_a_trial_the_front_and_one_sentence(finished) -> None:  # type: ignore[no-untyped-def]
    text = finished[1].stdout
    assert all(f"trial {n} " in text for n in range(6))
    assert "The front" in text
    assert "Chosen: trial" in text
    assert "meets accuracy >= 0.1 and size_mb <= 40" in text
    for noise in ("Warning", "it/s", "Loading weights", "%|"):
        assert noise not in text + finished[1].stderr


def test_a_report_of_the_whole_run_is_left(finished) -> None:  # type: ignore[no-untyped-def]
    run, done = finished
    assert f"Report: {run / 'report.html'}" in done.stdout
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f'id="trial-{len(studies.results(run)["trials"]) - 1}"' in page
    assert "PED-ANOVA" in page


def test_trials_csv_is_a_table_of_all_trials(finished) -> None:  # type: ignore[no-untyped-def]
    table = pd.read_csv(finished[0] / "trials.csv")
    assert len(table) == 6
    assert {"rank", "precision", "accuracy", "latency_ms.p50", "on_front"} <= set(table.columns)


def test_running_again_repeats_nothing(finished) -> None:  # type: ignore[no-untyped-def]
    out = finished[0]
    before = studies.results(out)
    again = studies.run(out.parent / "study.yaml", out, "--json")
    assert again.returncode == 0, again.stderr
    after = json.loads(again.stdout)
    assert after["trials"] == before["trials"]
    assert after["cost"]["adapters_trained"] == 2
    assert after["cost"]["artifacts_built"] == before["cost"]["artifacts_built"]


def test_a_larger_budget_goes_on_where_the_run_stopped(finished, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = finished[0]
    before = studies.results(out)["trials"]
    studies.write_study(out.parent, budget={"adapters": 3})
    done = studies.run(out.parent / "study.yaml", out)
    assert done.returncode == 0, done.stderr
    after = studies.results(out)
    assert [t["values"] for t in after["trials"][:6]] == [t["values"] for t in before]
    decided = [len(a["trials"]) + len(a["skipped"]) for a in after["adapters"] if a["state"] == "complete"]
    assert decided == [3] * 3
    assert after["cost"]["adapters_trained"] == 3


def test_another_study_is_turned_away_from_the_run_folder(finished, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = studies.write_study(tmp_path, objectives=["accuracy"])
    done = studies.run(other, finished[0])
    assert done.returncode == 2
    assert "objectives" in done.stderr
    assert "another --out" in done.stderr


def test_impossible_limits_give_exit_3_and_the_nearest_miss(finished) -> None:  # type: ignore[no-untyped-def]
    folder = finished[0].parent
    path = studies.write_study(folder, constraints=["accuracy >= 1.0", "size_mb <= 40"], budget={"adapters": 1})
    done = studies.run(path, folder / "impossible")
    assert done.returncode == 3, done.stderr
    assert "Nothing meets the limits. Nearest: trial" in done.stdout
    found = studies.results(folder / "impossible")
    assert found["selected"] is None
    miss = found["nearest_miss"]
    assert miss["expr"] == "accuracy >= 1.0"
    best = max(t["values"]["accuracy"]["value"] for t in found["trials"])
    assert miss["shortfall"] == pytest.approx(1 - best)
    assert found["cost"]["adapters_trained"] == 0  # the store had the adapter


def test_limits_that_no_adapter_can_meet_end_the_study_before_any_training(finished) -> None:  # type: ignore[no-untyped-def]
    folder = finished[0].parent
    path = studies.write_study(folder, constraints=["size_mb <= 0.001", "accuracy >= 0.01"], budget={"adapters": 1})
    done = studies.run(path, folder / "hopeless")
    assert done.returncode == 3, done.stderr
    assert "so nothing was trained. Nearest: int4-b32, which misses size_mb <= 0.001" in done.stdout
    assert done.stdout.count("is dropped: no adapter can save it: size_mb is") == 3
    found = studies.results(folder / "hopeless")
    jsonschema.validate(found, schema())
    assert found["trials"] == []
    miss = found["nearest_miss"]
    assert (miss["trial"], miss["deploy_point"], miss["expr"]) == (None, "int4-b32", "size_mb <= 0.001")
    values = {d["label"]: d["values"]["size_mb"]["value"] for d in found["dropped"]}
    assert miss["shortfall"] == pytest.approx(values["int4-b32"] - 0.001)
    assert not [e for e in _events(folder / "hopeless") if e.get("stage") in ("train", "assemble")]


def test_points_that_cannot_meet_a_limit_are_dropped_and_the_others_searched(finished) -> None:  # type: ignore[no-untyped-def]
    folder = finished[0].parent
    sizes = {p["label"]: p["values"]["size_mb"]["value"] for p in studies.results(finished[0])["deploy_points"]}
    limit = (sizes["fp16"] + sizes["int8-b32"]) / 2
    path = studies.write_study(folder, constraints=[f"size_mb <= {limit:.4f}"], budget={"adapters": 1})
    done = studies.run(path, folder / "dropping")
    assert done.returncode == 0, done.stderr
    assert f"fp16 is dropped: no adapter can save it: size_mb is {sizes['fp16']:.3f} MB" in done.stdout
    found = studies.results(folder / "dropping")
    assert {t["deploy_point"] for t in found["trials"]} == {"int8-b32", "int4-b32"}
    assert [d["label"] for d in found["dropped"]] == ["fp16"]


def test_the_same_study_in_a_new_folder_makes_nothing_again(finished) -> None:  # type: ignore[no-untyped-def]
    folder = finished[0].parent
    before = studies.results(finished[0])
    done = studies.run(studies.write_study(folder, budget={"adapters": 2}), folder / "again")
    assert done.returncode == 0, done.stderr
    after = studies.results(folder / "again")
    made = [e for e in _events(folder / "again") if e["event"] == "stage_end" and not e["cached"]]
    assert made == []
    assert "0 adapters trained, 0 artifacts assembled" in done.stdout
    assert [t["values"] for t in after["trials"]] == [t["values"] for t in before["trials"][:6]]


def test_a_trials_own_study_makes_its_artifact_again_and_trains_nothing(finished) -> None:  # type: ignore[no-untyped-def]
    folder = finished[0].parent
    select = [sys.executable, "-m", "autotune", "select", str(finished[0]), "--require", "size_mb >= 0.2", "--study",
              str(folder / "one.yaml"), "--json"]
    chosen = json.loads(subprocess.run(select, capture_output=True, text=True, env=studies.environment(), timeout=60,
                                       check=True).stdout)["chosen"]
    done = studies.run(folder / "one.yaml", folder / "one")
    assert done.returncode == 0, done.stderr
    assert "0 adapters trained, " in done.stdout
    (trial,) = studies.results(folder / "one")["trials"]
    assert trial["values"]["accuracy"]["value"] == chosen["values"]["accuracy"]["value"]
    assert (folder / "one" / trial["artifact"]).is_dir()


def test_one_changed_training_row_trains_again_but_exports_and_probes_nothing(finished, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = finished[0].parent
    path = studies.write_study(folder, budget={"adapters": 1}, data={**studies.study()["data"], "train": "other.jsonl"})
    rows = (folder / "train.jsonl").read_text().splitlines()
    (folder / "other.jsonl").write_text("\n".join([*rows[:-1], rows[0]]))
    done = studies.run(path, folder / "changed")
    assert done.returncode == 0, done.stderr
    made = {e["stage"] for e in _events(folder / "changed") if e["event"] == "stage_end" and not e["cached"]}
    assert made == {"data", "train", "assemble", "answers"}


def _events(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]


def test_dry_run_trains_nothing_and_says_what_it_takes(finished) -> None:  # type: ignore[no-untyped-def]
    folder = finished[0].parent
    space = {**studies.study()["space"], "deploy": [{"precision": ["fp16", "bf16"]}, {"precision": "int4"}]}
    path = studies.write_study(folder, space=space)
    done = studies.run(path, folder / "plan", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "2 deploy points" in done.stdout
    assert "bf16" in done.stdout
    assert "left out" in done.stdout
    assert "minutes" in done.stdout
    assert "memory" in done.stdout
    assert not (folder / "plan").exists()


def test_a_provider_that_is_not_here_is_said_before_any_work(finished) -> None:  # type: ignore[no-untyped-def]
    folder = finished[0].parent
    target = {**studies.study()["target"], "provider": "dml"}
    done = studies.run(studies.write_study(folder, target=target), folder / "elsewhere")
    assert done.returncode == 2
    assert "target.provider: dml, which ONNX Runtime lacks here; accepted: cpu" in done.stderr


def test_the_readme_names_every_flag_and_only_real_ones() -> None:
    done = subprocess.run([sys.executable, "-m", "autotune", "run", "--help"], capture_output=True, text=True,
                          env={**studies.environment(), "COLUMNS": "200", "TERM": "dumb"}, timeout=60)
    flags = set(re.findall(r"--[a-z-]+", done.stdout)) - {"--help"}
    assert len(flags) >= 6
    usage = next(line for line in README.splitlines() if line.startswith("`autotune run STUDY"))
    assert set(re.findall(r"--[a-z-]+", usage)) == flags


def test_a_study_of_speed_and_size_alone_needs_no_answer_metric(finished) -> None:  # type: ignore[no-untyped-def]
    folder = finished[0].parent
    path = studies.write_study(folder, objectives=["latency_ms.p50", "size_mb"], constraints=[],
                               budget={"adapters": 1}, policy="smallest")
    done = studies.run(path, folder / "speed")
    assert done.returncode == 0, done.stderr
    found = studies.results(folder / "speed")
    sizes = {t["number"]: t["values"]["size_mb"]["value"] for t in found["trials"]}
    assert found["selected"]["trial"] == min(sizes, key=lambda n: sizes[n])


def test_changed_rows_are_not_mixed_into_an_old_run(tmp_path: Path) -> None:
    study = studies.write_study(tmp_path, budget={"adapters": 1})
    assert studies.run(study, tmp_path / "run", "--trials", "1").returncode == 0
    rows = (tmp_path / "valid.jsonl").read_text().splitlines()
    (tmp_path / "valid.jsonl").write_text("\n".join(rows[1:]))
    done = studies.run(study, tmp_path / "run")
    assert done.returncode == 2
    assert "data: contents" in done.stderr
