"""``autotune report``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.errors import ConfigError
from autotune.finished import read_run
from autotune.report.report_html import write_report
from tests import finished_runs, reports


def test_the_command_writes_beside_the_run_or_where_it_is_told(tmp_path: Path) -> None:
    folder = finished_runs.write(tmp_path / "run", **reports.certified())
    done = CliRunner().invoke(app, ["report", str(folder)], catch_exceptions=False)
    assert done.stdout.strip() == str(folder / "report.html")
    assert (folder / "report.html").is_file()
    done = CliRunner().invoke(app, ["report", str(folder), "--out", str(tmp_path / "other.html"), "--json"],
                              catch_exceptions=False)
    told = json.loads(done.stdout)
    assert (told["report"], told["verdict"], told["trial"]) == (str(tmp_path / "other.html"), "PASS", 0)
    assert told["bytes"] == (tmp_path / "other.html").stat().st_size


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    run = read_run(finished_runs.write(tmp_path / "run"))
    with pytest.raises(ConfigError, match="No such file or directory"):
        write_report(run, tmp_path / "nowhere" / "report.html")
    with pytest.raises(ConfigError, match="accepted: a file that can be written"):
        write_report(run, tmp_path)
    assert not list(tmp_path.glob(".*"))
