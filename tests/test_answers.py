"""A measurement that is stored is read back whole, and numbers are made of the requests that count."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from autotune import answers
from autotune.targets.local import run_probe
from objectives.result import ProbeResult
from objectives.timing import Timing
from tests import artifacts
from tests.test_probe import CHOICE, GENERATE, LATENCY, for_artifact
from tests.timings import abba


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> ProbeResult:
    beside = {**LATENCY, "samples": 8, "reference": {"artifact": str(artifacts.artifact("int8"))}}
    return run_probe(for_artifact(GENERATE, beside), workdir=tmp_path_factory.mktemp("probe"))


def with_timing(result: ProbeResult, timing: Timing | None) -> ProbeResult:
    return dataclasses.replace(result, timing=timing)


def test_what_is_stored_is_loaded_as_it_was(measured: ProbeResult, tmp_path: Path) -> None:
    answers.store(tmp_path, measured, 1234)
    assert answers.load(tmp_path) == (measured, 1234)
    assert measured.timing
    assert measured.timing.has_reference


def test_a_measurement_without_timings_is_stored_too(tmp_path: Path) -> None:
    result = run_probe(for_artifact(CHOICE), workdir=tmp_path)
    answers.store(tmp_path, result, 1)
    loaded, _ = answers.load(tmp_path)
    assert loaded == result
    assert loaded.timing is None
    assert loaded.samples == ()
    assert answers.timed(loaded, [], 0.95, "fp32") is None
    assert set(answers.system_measurements(loaded, [], 0.95)) == {"peak_rss_mb", "load_ms"}


def test_disturbed_requests_are_in_no_number(measured: ProbeResult) -> None:
    steady = abba([(100, 150)] * 2)
    disturbed = abba([(100, 150), (400, 600), (100, 150)], {5: 1.0})
    numbers = [answers.system_measurements(with_timing(measured, t), ["latency_ms.p90"], 0.95)
               for t in (steady, disturbed)]
    assert numbers[0] == numbers[1]
    assert numbers[0]["latency_ms.p50"].n == 12


def test_ratios_are_of_every_time_and_of_what_was_asked_for(measured: ProbeResult) -> None:
    found = answers.timed(with_timing(measured, abba([(100, 150)] * 4)), ["latency_ms.p90", "accuracy"], 0.95, "fp32")
    assert found
    assert found.reference == "fp32"
    assert set(found.ratios) == {"ttft_ms.p50", "tpot_ms.p50", "latency_ms.p50", "tokens_per_s.p50", "latency_ms.p90"}
    assert found.ratios["tokens_per_s.p50"].value == pytest.approx(1.5)
    assert found.steadiness.state == "steady"
