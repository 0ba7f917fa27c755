"""autotune from Python: docs/python.md as it stands, run on a tiny study, and what its tables hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

import autotune
from tests import finished_runs, studies

ROOT = Path(__file__).parents[1]
DOCS = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def documented() -> str:
    """The code blocks of docs/python.md as one program; those that need what is not installed are left out."""
    blocks = re.findall(r"(?:<!-- needs: (\w+) -->\n)?```python\n(.*?)```", DOCS, re.DOTALL)
    return "\n".join(code for needed, code in blocks if not needed or find_spec(needed))


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which the documentation's program ran, with a tiny study in the example's place."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "examples" / "tone").mkdir(parents=True)
    space = {**studies.study()["space"], "deploy": [{"precision": ["int8", "int4"]}]}
    studies.write_study(folder / "examples" / "tone", name="tone", space=space, budget={"adapters": 1},
                        constraints=["accuracy >= 0.05", "size_mb <= 40"],
                        certificate={"finalists": 1, "time": "5s"})
    (folder / "program.py").write_text(documented(), encoding="utf-8")
    done = subprocess.run([sys.executable, "program.py"], cwd=folder, capture_output=True, text=True, timeout=300,
                          env={**studies.environment(), "AUTOTUNE_STORE": str(folder / "store")})
    return folder, done


@pytest.fixture(scope="module")
def run(explored: tuple[Path, subprocess.CompletedProcess[str]]) -> autotune.Run:
    return autotune.load(explored[0] / "runs" / "tone")


def test_the_documentation_runs_as_it_stands(explored: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = explored
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "Certified: trial" in done.stdout
    assert "model → " in done.stdout
    assert "training" not in done.stdout  # quiet
    assert (folder / "accuracy-over-latency.html").stat().st_size > 1000
    assert (folder / "runs" / "tone-smallest" / "results.json").exists()


def test_the_documentation_names_the_columns_that_there_are(run: autotune.Run) -> None:
    columns = list(run.trials().columns)
    assert columns[:3] == ["state", "deploy_point", "rank"]
    assert columns[-5:] == ["feasible", "on_front", "tied_with", "artifact", "reason"]
    objectives = columns.index("accuracy")
    assert columns[objectives:objectives + 5] == ["accuracy", "accuracy.low", "accuracy.high", "accuracy.n",
                                                  "latency_ms.p50"]
    assert {"accuracy >= 0.05", "ttft_ms.p95.high", "peak_rss_mb", "precision"} <= set(columns)
    for name in ("state", "deploy_point", "KEY.low", "KEY.n", "tied_with", "artifact", "reason"):
        assert f"`{name}`" in DOCS


def test_tables_say_what_results_json_says(run: autotune.Run) -> None:
    document, trials = studies.results(run.folder), run.trials()
    assert list(trials.index) == [t["number"] for t in document["trials"]]
    for trial in document["trials"]:
        row = trials.loc[trial["number"]]
        for key, value in trial["values"].items():
            assert row[key] == value["value"]
            assert row[f"{key}.n"] == value["n"]
            assert pd.isna(row[f"{key}.low"]) if value["low"] is None else row[f"{key}.low"] == value["low"]
    assert list(run.front().index) == document["front"]
    events = run.events()
    trained = events[(events["stage"] == "train") & (events["event"] == "stage_end")]
    assert trained["seconds"].sum() == pytest.approx(document["cost"]["seconds_by_stage"]["train"], abs=0.01)
    assert str(events["time"].dtype).endswith("UTC]")


def test_the_selected_model_is_the_certified_one_and_lies_on_disk(run: autotune.Run) -> None:
    chosen, certificate = run.selected, run.certificate
    assert chosen is not None
    assert certificate is not None
    assert (run.verdict, run.exit_code) == ("selected", 0)
    assert chosen.number == certificate["trial"]
    assert chosen.certified["accuracy"].n == 48
    assert chosen.values["accuracy"].n == 18
    assert chosen.certified["latency_ms.p50"].unit == "ms"
    assert chosen.artifact is not None
    assert (chosen.artifact / "genai_config.json").exists()


def test_answers_are_those_that_accuracy_was_made_of(run: autotune.Run) -> None:
    chosen = run.selected
    assert chosen is not None
    assert run.predictions(chosen.number)["right"].mean() == pytest.approx(chosen.values["accuracy"].value)
    assert run.predictions(chosen.number, certified=True)["right"].mean() == pytest.approx(
        chosen.certified["accuracy"].value)
    with pytest.raises(autotune.ConfigError, match="trial 99: no such trial"):
        run.predictions(99)


def test_answers_that_are_not_there_name_those_that_are(tmp_path: Path) -> None:
    folder = finished_runs.write(tmp_path / "run")
    (folder / "predictions").mkdir()
    (folder / "predictions" / "trial-2.csv").write_text('row,reference,answer,right\n0,NA,"a, b",0\n', encoding="utf-8")
    run = autotune.load(folder)
    assert run.predictions(2).loc[0].to_dict() == {"reference": "NA", "answer": "a, b", "right": False}
    with pytest.raises(autotune.ConfigError, match=r"predictions/trial-0.csv: .*COMPLETE; accepted: one of 2"):
        run.predictions(0)
    with pytest.raises(autotune.ConfigError, match="this run has none"):
        run.predictions(2, certified=True)


def test_a_run_without_a_choice_has_empty_tables(tmp_path: Path) -> None:
    run = autotune.load(finished_runs.write(tmp_path / "run", trials=[], front=[], selected=None))
    assert run.selected is None
    assert run.verdict == "failed"
    assert run.trials().empty
    assert "accuracy.low" in run.front().columns
    assert run.events().empty
    assert "nothing to choose" in repr(run)


def test_a_notebook_shows_the_outcome_and_no_markup_of_the_datas(tmp_path: Path) -> None:
    labelled = finished_runs.trial(0, "int4", 8, 0.7, 180, 210, on_front=True, deploy_point="<script>alert(1)</script>")
    run = autotune.load(finished_runs.write(
        tmp_path / "run", trials=[labelled], front=[0],
        selected={"trial": 0, "policy": "knee", "certificate": None}))
    shown = run._repr_html_()
    assert "Chosen: trial 0" in shown
    assert "<table" in shown
    assert "<script>" not in shown
    assert repr(run).startswith("<autotune.Run 'tone' in ")


def test_everything_wrong_is_raised_and_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_STORE", str(tmp_path / "store"))
    study = studies.write_study(tmp_path)
    with pytest.raises(autotune.ConfigError) as caught:
        autotune.run({**studies.study(), "objectives": ["acuracy"], "policy": "best"}, base_dir=study.parent)
    assert {p.where for p in caught.value.problems} == {"objectives[0]", "policy"}
    with pytest.raises(autotune.ConfigError, match="base_dir"):
        autotune.run(study, base_dir=tmp_path)
    with pytest.raises(autotune.ConfigError) as caught:
        autotune.run(study, tmp_path / "run", trials=0, timeout="soon")
    assert [p.file for p in caught.value.problems] == ["--trials", "--timeout"]
    with pytest.raises(autotune.ConfigError, match="no such folder"):
        autotune.load(tmp_path / "run")


def test_the_example_program_reads_a_run(run: autotune.Run) -> None:
    program = ROOT / "examples" / "tone" / "explore.py"
    done = subprocess.run([sys.executable, str(program), str(run.folder)], capture_output=True, text=True, timeout=60,
                          env=studies.environment())
    assert done.returncode == 0, done.stderr
    assert "Certified: trial" in done.stdout
    assert "most often taken for another" in done.stdout


def test_importing_autotune_stays_light_and_its_names_are_functions() -> None:
    code = ("import sys, autotune; before = set(sys.modules); import autotune.run_study, autotune.commands.run; "
            "heavy = {'pandas', 'numpy', 'pydantic', 'torch', 'optuna', 'yaml'} & before; "
            "print(sorted(heavy), callable(autotune.run), callable(autotune.load), 'Run' in dir(autotune))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.strip() == "[] True True True", done.stderr
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        autotune.nonsense  # type: ignore[attr-defined]  # noqa: B018
