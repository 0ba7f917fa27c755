"""``autotune compare`` as a user calls it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from autotune.cli import app
from autotune.errors import ConfigError
from tests import finished_runs
from tests.finished_runs import trial

HOSTILE = "</script><img src=x onerror=alert(1)>|"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], catch_exceptions=False)


def other(folder: Path, **changes: Any) -> Path:
    trials = [trial(0, "int4", 4, 0.72, 180, 200), trial(1, "int8", 4, 0.95, 280, 340)]
    return finished_runs.write(folder, trials=trials, front=[0, 1], selected=None, **changes)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inputs.json").write_text('{"data": "data/1"}', encoding="utf-8")
    return finished_runs.write(tmp_path / "one"), other(tmp_path / "two")


def test_the_answer_comes_first_and_noise_is_not_settled(runs: tuple[Path, Path]) -> None:
    text = call(*runs).stdout
    assert text.splitlines()[1].startswith("By hypervolume two covers most: 0.")
    assert "the reference point, which is accuracy 0.6 (the limit of every run)" in text
    assert re.search(r"most-accurate\s+one\s+2\s+int8-b32", text)
    assert "+0.200" in text
    assert "+0.020, not settled" in text
    assert re.search(r"200 to 210\s+two alone", text)
    assert re.search(r"dominated by another run", text)


def test_as_json_it_is_one_object(runs: tuple[Path, Path]) -> None:
    found = json.loads(call(*runs, "--json").stdout)
    assert found["schema"] == "autotune/comparison@1"
    assert [run["label"] for run in found["runs"]] == ["one", "two"]
    assert found["runs"][0]["dominated"] == [0, 2]
    assert found["coverage"]["two"]["one"] == 1.0
    assert {r["key"]: r["of"] for r in found["hypervolume"]["reference"]} == {
        "accuracy": "limit", "latency_ms.p50": "worst", "size_mb": "worst"}
    assert found["best_within"]["size_mb"][0] == {
        "from": 200, "to": 210, "best": ["two"], "settled": True, "trials_at_start": {"one": None, "two": 0},
        "trials_at_end": {"one": None, "two": 0}}
    assert found["policies"][0]["picks"]["two"]["differences_to_first"]["accuracy"]["settled"]


def test_every_output_carries_the_warning(runs: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = runs
    document = json.loads((two / "results.json").read_text(encoding="utf-8"))
    document["environment"]["cores"] = 64
    (two / "results.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"environment.cores: 2 in one, 64 in two; accepted: .* or --any-target"):
        call(one, two)
    markdown, html = tmp_path / "c.md", tmp_path / "c.html"
    said = "measured on different targets (environment.cores: 2 in one, 64 in two)"
    assert said in call(one, two, "--any-target", "--markdown", markdown, "--html", html).stdout
    assert said in json.loads(call(one, two, "--any-target", "--json").stdout)["warnings"][0]
    assert said in markdown.read_text(encoding="utf-8").replace("\\", "")
    assert said in html.read_text(encoding="utf-8")


def test_names_from_runs_are_text_everywhere(runs: tuple[Path, Path], tmp_path: Path) -> None:
    one = runs[0]
    hostile = [trial(0, "int4", 8, 0.7, 180, 210, deploy_point=HOSTILE)]
    two = finished_runs.write(tmp_path / "[red]b|", trials=hostile, front=[0], selected=None)
    markdown, html = tmp_path / "c.md", tmp_path / "c.html"
    text = call(one, two, "--markdown", markdown, "--html", html).stdout
    assert "[red]b|" in text
    assert "<img" not in markdown.read_text(encoding="utf-8")
    assert "\\[red\\]b\\|" in markdown.read_text(encoding="utf-8")
    assert "<img" not in html.read_text(encoding="utf-8")


def test_the_page_overlays_the_fronts_by_colour_and_shape(runs: tuple[Path, Path], tmp_path: Path) -> None:
    html = tmp_path / "c.html"
    call(*runs, "--html", html)
    plots = re.findall(r'<script type="application/json">(.*?)</script>', html.read_text(encoding="utf-8"))
    figures = [json.loads(plot) for plot in plots]
    assert [f["layout"]["xaxis"]["title"]["text"].split()[0] for f in figures] == ["latency_ms.p50", "size_mb"]
    named = {t["name"]: t for t in figures[1]["data"] if t.get("name")}
    assert named["one"]["marker"]["color"] != named["two"]["marker"]["color"]
    assert named["one"]["marker"]["symbol"] != named["two"]["marker"]["symbol"]
    assert named["two"]["x"] == [200, 340]
    line = next(t for t in figures[1]["data"] if t["mode"] == "lines" and t["legendgroup"] == "one")
    assert (line["x"], line["y"]) == ([210, 340, 340], [0.7, 0.75, 0.75])


def test_problems_of_all_runs_are_said_at_once(runs: tuple[Path, Path], tmp_path: Path) -> None:
    (runs[1] / "study.yaml").unlink()
    with pytest.raises(ConfigError) as caught:
        call(*runs, tmp_path / "nowhere")
    assert [p.found for p in caught.value.problems] == ["cannot be read: FileNotFoundError", "no such folder"]


def test_a_file_that_cannot_be_written_is_named(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--markdown: .*nowhere"):
        call(*runs, "--markdown", tmp_path / "nowhere" / "c.md")
