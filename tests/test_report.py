"""What people read: sentences with figures, units and names; nothing hidden."""

from __future__ import annotations

import io
from dataclasses import replace

import jsonschema
import pytest
from rich.console import Console

from autotune.constraints import parse
from autotune.ratio import ratio
from autotune.report.outcome import judge
from autotune.report.results import Context, results, schema
from autotune.report.terminal import Terminal, describe, show, verdict_sentence
from autotune.stats import Measurement
from autotune.storage.entry_key import Key
from autotune.trials import INTERRUPTED, Screened, Screening, Timed, TrialRecord
from objectives.base import OBJECTIVES
from objectives.steadiness import steadiness
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams
from tests.timings import abba

KEYS = [("accuracy", OBJECTIVES["accuracy"]), ("latency_ms.p95", OBJECTIVES["latency_ms"])]
UNITS = {"accuracy": "", "latency_ms.p95": "ms", "size_mb": "MB"}
ADAPTER = AdapterParams(8, 16, 2e-4)


def record(number: int, accuracy: float, latency: float, **changes: object) -> TrialRecord:
    values = {
        "accuracy": Measurement(accuracy, accuracy - 0.05, accuracy + 0.05, 128, ""),
        "latency_ms.p95": Measurement(latency, latency - 9, None, 20, "ms"),
    }
    made = TrialRecord(number, "COMPLETE", ADAPTER, DeployParams("int8"), "adapter/a", values, {},
                       Key("artifact", "x"), None)
    return replace(made, **changes)  # type: ignore[arg-type]


def sentence(records: list[TrialRecord], *limits: str) -> str:
    constraints = [parse(limit) for limit in limits]
    outcome = judge(records, KEYS, constraints, "most-accurate")
    return verdict_sentence(records, KEYS, constraints, outcome, UNITS)


def test_the_choice_in_one_sentence() -> None:
    text = sentence([record(0, 0.8, 300), record(1, 0.7, 100)], "accuracy >= 0.6", "latency_ms.p95 <= 400")
    assert text == ("Chosen: trial 0, int8-b32 (most-accurate of 2 on the front): accuracy 0.800, "
                    "latency_ms.p95 300 ms and meets accuracy >= 0.6 and latency_ms.p95 <= 400.")


def test_the_nearest_miss_says_by_how_much_and_what_share() -> None:
    text = sentence([record(0, 0.8, 431), record(1, 0.7, 700)], "latency_ms.p95 <= 400")
    assert text == ("Nothing meets the limits. Nearest: trial 0, int8-b32, misses latency_ms.p95 <= 400 by 31 ms (8%); "
                    "latency_ms.p95 was 431 ms.")


def test_without_a_complete_trial_nothing_is_claimed() -> None:
    failed = record(0, 0, 0, state="FAILED", values={}, failure=("train", "the loss is nan"))
    assert "nothing to choose" in sentence([failed], "accuracy >= 0.6")


def test_an_open_interval_is_shown_open() -> None:
    assert show(Measurement(152.9, 149.9, None, 20, "ms"), interval=True) == "153 [150, …]"
    assert show(Measurement(0.758, 0.677, 0.824, 128, ""), interval=True) == "0.758 [0.677, 0.824]"
    assert show(Measurement(337.4, 337.4, 337.4, 1, "MB"), interval=True) == "337"


def test_adapters_are_described_by_what_is_special_about_them() -> None:
    assert describe(ADAPTER) == "r 8, alpha 16, lr 0.0002, all-linear, 2 epochs"
    special = replace(ADAPTER, steps=50, epochs=0.0, dropout=0.1, variant="dora", base_precision="nf4")
    assert describe(special) == "r 8, alpha 16, lr 0.0002, all-linear, 50 steps, dropout 0.1, dora, nf4 base"


def test_text_from_data_is_no_markup() -> None:
    terminal = Terminal()
    terminal.console = Console(file=io.StringIO(), width=80)
    terminal.warn("label [red]x[/] and [link=http://e]y[/link]")
    terminal.failed(0, "train", "[bold]boo")
    printed = terminal.console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]x[/]" in printed
    assert "[bold]boo" in printed


def test_a_failed_trial_never_looks_like_a_measured_one() -> None:
    failed = record(1, 0, 0, state="FAILED", values={}, artifact=None, failure=("probe", "killed"))
    dead = record(2, 0, 0, state="FAILED", values={}, artifact=None, failure=(INTERRUPTED, "gone"))
    constraints = [parse("accuracy >= 0.6")]
    context = Context("s", "0" * 64, {}, KEYS, dict(KEYS), constraints, [])
    records = [record(0, 0.8, 300), failed, dead]
    document = results(context, records, judge(records, KEYS, constraints, "knee"), {}, None, {})
    assert document["front"] == [0]
    assert [t["feasible"] for t in document["trials"]] == [True, None, None]
    assert document["trials"][1]["verdicts"] == {}
    assert document["trials"][1]["reason"] == "probe: killed"
    assert dead.interrupted
    assert not failed.interrupted


def test_point_estimates_decide_feasibility_and_intervals_verdicts() -> None:
    constraints = [parse("accuracy >= 0.78")]
    context = Context("s", "0" * 64, {}, KEYS, dict(KEYS), constraints, [])
    records = [record(0, 0.8, 300)]
    trial = results(context, records, judge(records, KEYS, constraints, "knee"), {}, None, {})["trials"][0]
    assert trial["feasible"] is True
    assert trial["verdicts"] == {"accuracy >= 0.78": "INCONCLUSIVE"}


def test_a_points_timing_says_how_far_it_can_be_trusted() -> None:
    timing = abba([(100, 150)] * 2, {5: 0.6}, wanted=6)
    timed = Timed(steadiness(timing), "fp32", {"latency_ms.p50": ratio(timing, "latency_ms.p50")})
    kept = tuple(Screened(DeployParams(p), {}, {}, t) for p, t in (("int8", timed), ("int4", None)))
    context = Context("s", "0" * 64, {}, KEYS, dict(KEYS), [], [], Screening(kept, ()))
    document = results(context, [], None, {}, None, {})
    found, none = (point["timing"] for point in document["deploy_points"])
    assert none is None
    assert (found["reference"], found["state"], found["disturbed_blocks"], found["blocks"]) == ("fp32", "steady", 1, 8)
    assert found["ratios"]["latency_ms.p50"]["value"] == pytest.approx(2 / 3)
    assert "0.6 cores in 1 of 8 blocks" in found["sentence"]
    part = {**schema(), "required": [], "properties": {"deploy_points": schema()["properties"]["deploy_points"]}}
    jsonschema.validate({"deploy_points": document["deploy_points"]}, part)
    found["state"] = "fine"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"deploy_points": document["deploy_points"]}, part)


def test_a_limit_on_something_unmeasured_is_an_error() -> None:
    with pytest.raises(KeyError):
        judge([record(0, 0.8, 300)], KEYS, [parse("size_mb <= 3")], "knee")
