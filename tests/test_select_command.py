"""``autotune select`` as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from autotune import predictions
from autotune.cli import app
from autotune.errors import ConfigError
from tests import finished_runs, studies
from tests.finished_runs import value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return finished_runs.write(tmp_path / "run")


def call(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["select", str(folder), *arguments], catch_exceptions=False)


def document(folder: Path, *arguments: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(call(folder, *arguments, "--json").stdout)
    return loaded


def look(trial: int) -> dict[str, Any]:
    accuracy, p95 = value(0.66, 0.05, 320, tier="certify"), value(330.0, 9, 140, tier="certify")
    limits = [{"expr": expr, "verdict": "PASS", "compared": key, "bound": bound, "unit": "", "doubt": None,
               "n_to_settle": None, **{name: found[name] for name in ("value", "low", "high", "n")}}
              for expr, key, bound, found in (("accuracy >= 0.6", "accuracy", 0.6, accuracy),
                                              ("latency_ms.p95 <= 600", "latency_ms.p95", 600.0, p95))]
    return {"trial": trial, "verdict": "PASS", "confidence": 0.975, "problem": None, "constraints": limits,
            "values": {"accuracy": accuracy, "latency_ms.p95": p95}, "timing": {}, "logits": {}}


def test_a_choice_is_explained(folder: Path) -> None:
    done = call(folder, "--require", "size_mb <= 400", "--policy", "fastest")
    assert done.exit_code == 0
    text = done.stdout
    assert "in place of accuracy >= 0.6 and latency_ms.p95 <= 600, which the study asked" in text
    assert "Chosen: trial 0 (int4-b32), fastest of 2 on the front" in text
    assert "Next best: trial 2 (int8-b32) gains 0.050 of accuracy (not settled: the intervals meet)" in text
    assert "gives up 100 ms of latency_ms.p50 (56%) and 130 MB of size_mb (62%)" in text
    assert "These are the search's figures" in text


def test_as_json_it_is_one_object(folder: Path) -> None:
    found = document(folder, "--require", "size_mb <= 400")
    assert found["schema"] == "autotune/selection@1"
    assert found["chosen"]["trial"] == 2
    assert found["chosen"]["limits"][0]["verdict"] == "PASS"
    assert found["chosen"]["tied_with"] == [0]
    assert found["others"][0]["differences"]["size_mb"]["difference"] == -130
    assert found["nearest_miss"] is None


def test_answers_kept_row_by_row_settle_ties(folder: Path) -> None:
    for number, right in ((2, 96), (0, 60)):
        answers = ["a"] * right + ["b"] * (128 - right)
        predictions.save(folder / "predictions" / f"trial-{number}.csv", ["a"] * 128, answers)
    assert document(folder)["chosen"]["tied_with"] == []


def test_nothing_that_fits_is_exit_3_and_a_bound_that_would(folder: Path) -> None:
    done = call(folder, "--require", "accuracy >= 0.8")
    assert done.exit_code == 3
    assert "Nearest: trial 2 (int8-b32), which misses accuracy >= 0.8 by 0.05 (6%)" in done.stdout
    found = document(folder, "--require", "accuracy >= 0.8")
    assert found["chosen"] is None
    assert found["nearest_miss"]["relax_one"][0]["relax_to"] == "accuracy >= 0.75"


def test_a_run_without_limits_is_chosen_from_as_a_whole(tmp_path: Path) -> None:
    done = call(finished_runs.write(tmp_path / "run", constraints=[]))
    assert done.exit_code == 0
    assert "4 of 4 complete trials fit, as there are no limits." in done.stdout
    assert "Its limits" not in done.stdout


def test_every_problem_is_said_at_once(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "autotune", "select", str(folder), "--require", "acuracy >= 1", "--require", "x",
         "--policy", "fast"], capture_output=True, text=True, env=studies.environment(), timeout=60)
    assert done.returncode == 2
    assert "3 problems" in done.stderr
    assert "did you mean 'fastest'?" in done.stderr
    assert done.stdout == ""


def test_a_policy_needs_an_objective_to_go_by(tmp_path: Path) -> None:
    objectives = [{"name": "accuracy", "direction": "maximize", "unit": ""},
                  {"name": "size_mb", "direction": "minimize", "unit": "MB"}]
    folder = finished_runs.write(tmp_path / "run", objectives=objectives)
    with pytest.raises(ConfigError, match=r"fastest has none of this run's objectives .*: most-accurate, smallest, kn"):
        call(folder, "--policy", "fastest")


def test_keep_limits_alone_asks_for_something(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no --require beside it"):
        call(folder, "--keep-limits")


def test_a_certificates_figures_are_shown_for_its_trials_alone(tmp_path: Path) -> None:
    certificate = {"verdict": "PASS", "trial": 2, "confidence": 0.95, "finalists": 1, "method": "",
                   "looks": [look(2)], "text": []}
    folder = finished_runs.write(tmp_path / "run", certificate=certificate)
    seen = call(folder).stdout
    assert "Measured again for the certificate, with 0.975 confidence" in seen
    assert "0.660 [0.610, 0.710]" in seen
    other = "No certificate was made for the limits asked for here"
    assert other not in seen
    assert other in call(folder, "--require", "accuracy >= 0.7").stdout
    assert "No certificate" in call(folder, "--policy", "smallest").stdout
    assert document(folder)["chosen"]["certificate_look"]["confidence"] == 0.975


def test_an_artifact_is_named_while_it_is_there(folder: Path) -> None:
    assert "Not on disk: the run's are gone. To make it, give --study FILE" in " ".join(call(folder).stdout.split())
    (folder / "artifacts" / "trial-2").mkdir(parents=True)
    assert document(folder)["chosen"]["artifact"] == str(folder / "artifacts" / "trial-2")


def test_the_trials_own_study_is_written_once(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    assert document(folder, "--require", "size_mb <= 250", "--study", str(path))["written_study"] == str(path)
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["space"]["deploy"][0]["precision"] == "int4"
    with pytest.raises(ConfigError, match="there already"):
        call(folder, "--study", str(path))
    with pytest.raises(ConfigError, match="No such file"):
        call(folder, "--study", str(tmp_path / "nowhere" / "one.yaml"))
    assert document(folder, "--require", "size_mb <= 1", "--study", str(tmp_path / "two.yaml"))["written_study"] is None


def test_names_from_a_run_are_text(tmp_path: Path) -> None:
    folder = finished_runs.write(tmp_path / "run", study={"name": "[red]x[/]", "config_sha256": "0" * 64})
    assert "[red]x[/]" in call(folder).stdout


def test_damaged_answers_are_named(folder: Path) -> None:
    (folder / "predictions").mkdir()
    (folder / "predictions" / "trial-2.csv").write_text("row\n1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"trial-2\.csv"):
        call(folder)
