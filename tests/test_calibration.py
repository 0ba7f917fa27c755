"""The calibration holds its promises with few studies, and says so when a method does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from autotune import paired, stats
from autotune.certifying import power
from benchmarks import calibrate_certificates, calibrate_intervals, calibration
from benchmarks.simulated import Section, right_counts

FEW = 400


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate_intervals, "ROWS", (100,))
    monkeypatch.setattr(calibrate_intervals, "SAMPLES", ((0.5, (20,)), (0.95, (100,))))
    monkeypatch.setattr(calibrate_intervals, "PAIRS", calibrate_intervals.PAIRS[:2])
    monkeypatch.setattr(calibrate_certificates, "OFFSETS", (-0.005, 0.06))
    monkeypatch.setattr(calibrate_certificates, "OPENED", (("accuracy", 100, 0.78), ("p95", 100, 0.95)))


@pytest.mark.usefixtures("small")
def test_every_promise_holds_with_few_studies_and_every_section_prints_its_table() -> None:
    sections = calibration.simulate(FEW, 1)
    assert [s.broken for s in sections] == [[]] * len(calibration.SECTIONS)
    lines = calibration.report(sections)
    assert lines[-1] == "Every promise holds."
    assert all(any(line.startswith("|---") for line in s.lines) for s in sections)


@pytest.mark.usefixtures("small")
def test_intervals_that_are_too_narrow_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = {name: _narrow(getattr(module, name)) for module, name in
              ((stats, "wilson"), (stats, "clopper_pearson"), (paired, "paired_interval"))}
    monkeypatch.setattr(stats, "wilson", narrow["wilson"])
    monkeypatch.setattr(stats, "clopper_pearson", narrow["clopper_pearson"])
    assert calibrate_intervals.accuracy(FEW, 1).broken
    monkeypatch.setattr(paired, "paired_interval", narrow["paired_interval"])
    assert calibrate_intervals.differences(FEW, 1).broken


def _narrow(interval: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return lambda *given: interval(*given[:-1], 0.8)


@pytest.mark.usefixtures("small")
def test_percentiles_a_rank_too_wide_or_too_narrow_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = stats.percentile
    for confidence in (0.8, 0.999):
        monkeypatch.setattr(stats, "percentile", lambda samples, q, _, c=confidence: right(samples, q, c))
        monkeypatch.setattr(calibrate_intervals, "SAMPLES", ((0.5, (60,)),))
        assert calibrate_intervals.percentiles(FEW, 1).broken


@pytest.mark.usefixtures("small")
def test_a_certificate_without_care_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate_certificates, "confidence_at", lambda look, looks, confidence: 0.5)
    assert calibrate_certificates.certificate(FEW, 1).broken


@pytest.mark.usefixtures("small")
def test_too_few_rows_to_settle_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = power.rows_to_settle
    monkeypatch.setattr(power, "rows_to_settle", lambda *given: max(given[1] + 1, (asked(*given) or 0) // 8))
    assert calibrate_certificates.settling(FEW, 1).broken


def test_a_broken_promise_is_printed() -> None:
    section = Section("Something")
    section.at_least(0.90, 0.95, 1000, "this")
    section.at_most(0.10, 0.05, 1000, "that")
    section.at_least(0.94, 0.95, 1000, "within the error")
    assert calibration.report([section])[-2:] == [
        "- Something: this: 0.9000, promised at least 0.95 (accepted from 0.9293)",
        "- Something: that: 0.1000, promised at most 0.05 (accepted to 0.0707)",
    ]


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_drawn_trials_have_the_rate_asked_for_and_share_hard_rows(shared: float) -> None:
    right = right_counts(np.random.default_rng(2), 600, 2, 374, 0.78, shared)
    assert right.mean() / 374 == pytest.approx(0.78, abs=0.004)
    together = np.corrcoef(right.T)[0, 1]
    assert (together > 0.4) == bool(shared)
