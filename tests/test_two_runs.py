"""Two runs of one study at once, on one store and one machine: nothing is done twice, no latency is disturbed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from autotune.machine_lock import MachineLock
from tests import studies

Span = tuple[float, float]


def start(study: Path, out: Path, lock: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        studies.command(study, out), cwd=study.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**studies.environment(), "AUTOTUNE_MACHINE_LOCK": str(lock)})


def ends(out: Path) -> list[dict[str, Any]]:
    """What this run's own processes made: stages that ended and were not there already."""
    lines = (out / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == "stage_end" and not e["cached"]]


def spans(made: list[dict[str, Any]], *, timed: bool) -> list[Span]:
    return [(e["began"], e["ended"]) for e in made if e["timed"] or not timed]


def overlapping(a: list[Span], b: list[Span]) -> list[tuple[Span, Span]]:
    # Times in events.jsonl are rounded to a millisecond.
    return [(x, y) for x in a for y in b if min(x[1], y[1]) - max(x[0], y[0]) > 0.001]


def accuracies(out: Path) -> dict[tuple[str, str], tuple[str, Any]]:
    return {(t["adapter"], t["deploy_point"]): (t["state"], t["values"]["accuracy"])
            for t in studies.results(out)["trials"]}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("both")
    study, outs = studies.write_study(folder, budget={"adapters": 2}), [folder / "a", folder / "b"]
    processes = [start(study, out, folder / "machine-lock") for out in outs]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return outs


def test_nothing_is_made_by_both(both: list[Path]) -> None:
    made = [e["key"] for out in both for e in ends(out) if not e["key"].startswith("artifact/")]
    assert len(made) == len(set(made))
    assert sum(key.startswith("adapter/") for key in made) == 2


def test_no_latency_is_measured_while_the_other_works(both: list[Path]) -> None:
    first, second = map(ends, both)
    timed = [*spans(first, timed=True), *spans(second, timed=True)]
    assert len(timed) == 3  # a deploy point each
    assert not overlapping(spans(first, timed=True), spans(second, timed=False))
    assert not overlapping(spans(second, timed=True), spans(first, timed=False))


def test_both_come_to_the_same_answers(both: list[Path]) -> None:
    first, second = map(accuracies, both)
    assert first == second
    assert len(first) == 6
    selected = [studies.results(out)["selected"]["trial"] for out in both]
    assert selected[0] == selected[1]


def test_who_waits_for_the_machine_is_told_why(tmp_path: Path) -> None:
    study, lock = studies.write_study(tmp_path, budget={"adapters": 1}), tmp_path / "machine-lock"
    said = ""
    with MachineLock(lock).working():  # as another run that trains for long
        process = start(study, tmp_path / "run", lock)
        for line in process.stdout or ():  # ends with the run: one that does not wait fails below
            said += line
            if "Waiting for" in line:
                break
    said += process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert "Waiting for other work on this machine to end, to measure latency" in said
