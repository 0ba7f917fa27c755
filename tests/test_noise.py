"""The noise benchmark judges a run by how far it is off and by what it says of itself."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from autotune.stats import Measurement
from benchmarks.noise import Bench, Run, first, given, holds, quiet_ratio, tables
from objectives.steadiness import steadiness
from tests import artifacts
from tests.timings import abba

STEADY = steadiness(abba([(100, 150)] * 4))
DISTURBED = steadiness(abba([(100, 150)] * 4, {1: 0.8}, wanted=24))


def run(value: float, said=STEADY, apart: float | None = None) -> Run:  # type: ignore[no-untyped-def]
    return Run(Measurement(value, value * 0.98, value * 1.02, 4, ""), said, apart)


QUIET = [run(0.79), run(0.81)]
GROWING = run(0.6, DISTURBED)


def test_nine_of_ten_near_or_honest_hold_and_eight_do_not() -> None:
    near, far, honest = run(0.85), run(1.1), run(1.1, DISTURBED)
    assert quiet_ratio(QUIET) == pytest.approx(0.8, rel=1e-3)
    assert holds(QUIET, [near] * 8 + [honest, far], GROWING)
    assert not holds(QUIET, [near] * 8 + [far, far], GROWING)


def test_a_growing_load_that_nobody_notices_fails() -> None:
    assert not holds(QUIET, [run(0.8)] * 10, run(0.8, STEADY))


def test_the_table_has_a_row_a_run_and_counts_both_ways_of_timing() -> None:
    loaded = [run(0.82, apart=1.3), run(0.95, DISTURBED, apart=0.84), run(0.8, apart=0.5)]
    lines = tables(QUIET, loaded, GROWING)
    rows = [line for line in lines if line.startswith("|")][2:]
    assert len(rows) == 6
    assert all(line.count("|") == 7 for line in rows)
    assert rows[2].startswith("| 5 s of load in 15 1 | 0.820 [0.804, 0.836] (n = 4) | +2.5% | steady: ")
    assert rows[2].endswith("| 1.300 | +62.5% |")
    assert rows[5].endswith("| – | – |")
    said = lines[-1]
    assert "2 of 3 interleaved runs (1 called themselves unsteady), 1 of 3 one after the other" in said
    assert "holds here" in said


def test_both_ways_of_timing_run_on_real_artifacts(tmp_path: Path) -> None:
    args = argparse.Namespace(samples=4, max_seconds=3.0, prompt_tokens=8, new_tokens=3, threads=1)
    bench = Bench([given(artifacts.artifact(p), p) for p in ("int8", "fp32")], args, tmp_path)
    found = bench.interleaved()
    assert 0.1 < found.interleaved.value < 10
    assert found.said.blocks >= 4
    assert 0.1 < bench.apart() < 10


def test_a_plain_loop_takes_the_first_requests_whatever_befell_them() -> None:
    timing = abba([(100, 100), (400, 400)], {1: 0.9})
    assert first(timing, 4) == [99, 100, 102, 99]


def test_an_artifact_brings_its_shortest_generator(tmp_path: Path) -> None:
    config: dict[str, Any] = {"model": {"decoder": {}}}
    (tmp_path / "genai_config.json").write_text(json.dumps(config))
    assert given(tmp_path, "a").min_generator_length == 1
    config["model"]["decoder"]["sliding_window"] = {"window_size": 512}
    (tmp_path / "genai_config.json").write_text(json.dumps(config))
    assert given(tmp_path, "a").min_generator_length == 512
