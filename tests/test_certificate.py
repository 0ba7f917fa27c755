"""Certificates: limits held against intervals, several looks paid for, and sentences that a person can act on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from autotune.certifying.certificate import Certificate, Evidence, certify, judge
from autotune.certifying.evidence import Measured, judged_by, requests_needed
from autotune.certifying.examine import more_requests
from autotune.constraints import Constraint, parse
from autotune.report.certificate import as_json, sentences
from autotune.stats import Measurement, exact, exact_proportion, percentile
from autotune.trials import TrialRecord
from objectives.steadiness import Drift, Steadiness
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

LIMITS = (parse("accuracy >= 0.75"), parse("latency_ms.p95 <= 400"))
UNITS = {"accuracy": "", "latency_ms.p95": "ms", "size_mb": "MB"}


def measured(right: int, n: int, confidence: float, samples: Sequence[float] = (200.0,) * 120,
             unsteady: Steadiness | None = None) -> Measured:
    flags = tuple(i < right for i in range(n))
    values = {"accuracy": exact_proportion(right, n, confidence), "size_mb": exact(300.0, 1, "MB"),
              "latency_ms.p95": percentile(samples, 0.95, confidence, "ms")}
    return Measured(values, flags, {"latency_ms": samples}, {}, unsteady)


def evidence(found: Measured, confidence: float, constraints: Sequence[Constraint] = LIMITS,
             baseline: Measured | None = None) -> Evidence:
    return Evidence(found.values, {c.expr: judged_by(c, found, baseline, confidence) for c in constraints})


def certificate(right: dict[int, int], n: int = 320, confidence: float = 0.95) -> Certificate:
    return certify(list(right), LIMITS, confidence, lambda t, c: evidence(measured(right[t], n, c), c))


def told(found: Certificate) -> str:
    return "\n".join(sentences(found, dict.fromkeys(range(9), "int8-b32"), ["accuracy", "size_mb"], UNITS, 320))


def test_the_first_whose_limits_all_pass_is_certified_and_no_further_one_is_looked_at() -> None:
    looked: list[int] = []

    def examine(trial: int, confidence: float) -> Evidence:
        looked.append(trial)
        return evidence(measured({4: 200, 2: 290, 7: 300}[trial], 320, confidence), confidence)

    found = certify([4, 2, 7], LIMITS, 0.95, examine)
    assert (found.verdict, found.trial) == ("PASS", 2)
    assert looked == [4, 2]
    assert [look.verdict for look in found.looks] == ["FAIL", "PASS"]


def test_each_further_look_is_judged_with_a_wider_interval() -> None:
    found = certificate({1: 245, 2: 245, 3: 245})
    assert found.verdict == "INCONCLUSIVE"
    levels = [look.confidence for look in found.looks]
    assert levels == pytest.approx([0.975, 0.9875, 0.9875])
    assert sum(1 - level for level in levels) == pytest.approx(0.05)


def test_one_limit_that_is_not_settled_keeps_a_trial_from_passing() -> None:
    slow = measured(300, 320, 0.95, [390.0] * 100 + [410.0] * 6)
    look = judge(1, 0.95, LIMITS, evidence(slow, 0.95))
    assert [h.verdict for h in look.held] == ["PASS", "INCONCLUSIVE"]
    assert look.verdict == "INCONCLUSIVE"


DISTURBED = Steadiness("disturbed", 0.8, 5, 12, None, Drift(0.0, 1.0), 3, True)
DRIFTING = Steadiness("drifting", 0.0, 0, 12, None, Drift(0.2, 1e-4), 3, True)


@pytest.mark.parametrize(("level", "unsteady", "verdict"), [
    (200.0, DISTURBED, "PASS"),  # without the load it would have been faster still
    (500.0, DISTURBED, "INCONCLUSIVE"), (500.0, None, "FAIL"),
    (200.0, DRIFTING, "PASS"), (380.0, DRIFTING, "INCONCLUSIVE"), (450.0, DRIFTING, "INCONCLUSIVE"),
    (380.0, None, "PASS"), (600.0, DRIFTING, "FAIL"),
])
def test_a_machine_that_did_not_keep_still_settles_only_what_it_could_not_have_changed(
    level: float, unsteady: Steadiness | None, verdict: str
) -> None:
    found = measured(300, 320, 0.95, [level] * 120, unsteady)
    look = judge(1, 0.95, LIMITS, evidence(found, 0.95))
    assert [h.verdict for h in look.held] == ["PASS", verdict]
    if verdict == "INCONCLUSIVE":
        assert look.held[1].needed is None
        text = told(Certificate("INCONCLUSIVE", 1, 0.95, 1, (look,)))
        assert unsteady is not None
        assert f"not settled, because {unsteady.sentence()}" in text


def test_a_ratio_by_turns_stands_on_a_machine_that_drifts_and_falls_on_one_that_is_disturbed() -> None:
    limit = parse("latency_ms.p50 <= 0.5 * baseline").resolved({"latency_ms.p50": 400.0})
    ratio, value = Measurement(0.45, 0.44, 0.47, 12, ""), Measurement(190.0, 170.0, 230.0, 60, "ms")
    for unsteady, verdict in ((DRIFTING, "PASS"), (DISTURBED, "INCONCLUSIVE")):
        found = Measured({"latency_ms.p50": value}, (), {}, {"latency_ms.p50": ratio}, unsteady)
        assert judge(1, 0.95, (limit,), evidence(found, 0.95, (limit,), found)).verdict == verdict


def test_a_constraint_that_was_not_measured_is_an_error() -> None:
    found = measured(300, 320, 0.95)
    with pytest.raises(KeyError):
        judge(1, 0.95, (*LIMITS, parse("peak_rss_mb <= 900")), evidence(found, 0.95))
    with pytest.raises(KeyError):
        judged_by(parse("peak_rss_mb <= 900"), found, None, 0.95)


def test_an_open_question_says_how_many_rows_would_settle_it() -> None:
    found = certificate({3: 252})
    assert (found.verdict, found.trial) == ("INCONCLUSIVE", 3)
    accuracy = found.looks[0].held[0]
    assert accuracy.needed is not None
    assert accuracy.needed > 320
    text = told(found)
    assert text.startswith("Not settled: trial 3 (int8-b32).")
    assert f"About {accuracy.needed} test rows would settle it, {accuracy.needed - 320} more than there were." in text


def test_a_failure_says_which_limit_to_relax_to_what_and_that_bound_then_holds() -> None:
    found = certificate({5: 150, 6: 180})
    assert (found.verdict, found.trial) == ("FAIL", None)
    assert found.miss is not None
    assert (found.miss.trial, found.miss.expr) == (6, "accuracy >= 0.75")
    assert found.miss.shortfall == pytest.approx(0.75 - 180 / 320)
    assert found.relax_to is not None
    relaxed = (parse(f"accuracy >= {found.relax_to}"), LIMITS[1])
    again = certify([6], relaxed, found.looks[1].confidence,
                    lambda t, c: evidence(measured(180, 320, c), c, relaxed))
    assert again.verdict == "PASS"
    assert "Nearest: trial 6 (int8-b32), which misses accuracy >= 0.75 by 0.188 (25%); relax it to 0.4" in told(found)


def test_a_finalist_that_cannot_be_measured_is_no_pass_and_the_next_is_looked_at() -> None:
    def examine(trial: int, confidence: float) -> Evidence | str:
        return "probe: killed by signal 9" if trial == 1 else evidence(measured(310, 320, confidence), confidence)

    found = certify([1, 2], LIMITS, 0.95, examine)
    assert (found.verdict, found.trial) == ("PASS", 2)
    assert "Passed over: trial 1 (int8-b32), which could not be measured: probe: killed by signal 9" in told(found)


def test_the_text_of_a_pass_reads_like_one_that_a_colleague_would_write() -> None:
    text = told(certificate({8: 290}))
    assert text.startswith("Certified: trial 8 (int8-b32). On 320 rows that the search never saw and on this artifact")
    assert "accuracy 0.906 [0.86" in text
    assert "latency_ms.p95 200 ms over 120 requests" in text
    assert text.endswith("So accuracy >= 0.75 and latency_ms.p95 <= 400 hold, with 0.95 confidence.")


def test_relative_accuracy_is_paired_so_that_hard_rows_do_not_count_twice() -> None:
    limit = parse("accuracy >= baseline - 0.03").resolved({"accuracy": 0.8})
    # The same rows are right but for three: apart from each other, 320 rows could not tell 0.03.
    found, baseline = measured(253, 320, 0.95), measured(256, 320, 0.95)
    held = judge(1, 0.95, (limit,), evidence(found, 0.95, (limit,), baseline)).held[0]
    assert held.verdict == "PASS"
    assert held.tested.measured.value == pytest.approx(-3 / 320)
    assert held.tested.bound == pytest.approx(-0.03)


def test_relative_latency_is_judged_by_the_interleaved_ratio() -> None:
    limit = parse("latency_ms.p50 <= 0.5 * baseline").resolved({"latency_ms.p50": 400.0})
    ratio = Measurement(0.45, 0.44, 0.47, 12, "")
    found = Measured({"latency_ms.p50": Measurement(190.0, 170.0, 230.0, 60, "ms")}, (), {}, {"latency_ms.p50": ratio},
                     None)
    held = judge(1, 0.95, (limit,), evidence(found, 0.95, (limit,), found)).held[0]
    assert (held.verdict, held.tested.measured) == ("PASS", ratio)


def test_relative_size_with_an_offset_is_a_difference() -> None:
    limit = parse("size_mb <= 0.5 * baseline + 10").resolved({"size_mb": 600.0})
    mine, base = (Measured({}, (), {}, {}, None, {"size_mb": exact(size, 1, "MB")}) for size in (305.0, 600.0))
    held = judge(1, 0.95, (limit,), evidence(mine, 0.95, (limit,), base)).held[0]
    assert held.verdict == "PASS"
    assert held.tested.measured.value == pytest.approx(5.0)


def test_a_difference_of_times_is_told_from_intervals_of_half_the_error_each() -> None:
    limit = parse("latency_ms.p50 <= baseline - 20").resolved({"latency_ms.p50": 400.0})
    samples = [350 + i % 60 for i in range(120)]
    plain, strict = (percentile(samples, 0.5, level, "ms") for level in (0.95, 0.975))
    assert strict.low
    assert strict.high
    assert strict.high - strict.low > (plain.high or 0) - (plain.low or 0)
    mine, base = (Measured({}, (), {}, {}, None, {"latency_ms.p50": m}) for m in (strict, exact(400.0, 1, "ms")))
    held = judge(1, 0.95, (limit,), evidence(mine, 0.95, (limit,), base)).held[0]
    assert (held.tested.measured.low, held.tested.measured.high) == (strict.low - 400, strict.high - 400)


def test_the_record_is_whole_and_plain_json() -> None:
    import json

    found = certificate({1: 245, 2: 290})
    record = as_json(found, UNITS, ["text"])
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert [look["verdict"] for look in record["looks"]] == ["INCONCLUSIVE", "PASS"]
    assert record["looks"][1]["values"]["accuracy"]["tier"] == "certify"


@pytest.mark.parametrize(("keys", "least"), [(["accuracy"], 50), (["latency_ms.p50"], 50), (["latency_ms.p95"], 72),
                                             (["latency_ms.p99", "ttft_ms.p50"], 368)])
def test_requests_are_enough_for_both_ends_of_every_percentile(keys: list[str], least: int) -> None:
    n = requests_needed(keys, 0.95)
    assert n >= least
    statistic = keys[0].partition(".")[2]
    if statistic:
        interval = percentile(list(range(n)), int(statistic[1:]) / 100, 0.95)
        assert interval.low is not None
        assert interval.high is not None


@pytest.mark.parametrize(("times", "spare_s", "more"), [
    ({"latency_ms.p50": 100.0}, 43.0, 215), ({"latency_ms.p50": 100.0, "latency_ms.p95": 200.0}, 43.0, 107),
    ({"latency_ms.p50": 100.0, "latency_ms.p95@pi": 900.0}, 43.0, 215), ({"latency_ms.p50": 100.0}, 0.0, 0),
    ({"ttft_ms.p50": 100.0}, 43.0, 0)])
def test_time_that_is_left_goes_into_requests_by_turns_with_the_references(
    times: dict[str, float], spare_s: float, more: int
) -> None:
    values = {key: Measurement(at, at, at, 20, "ms") for key, at in times.items()}
    record = TrialRecord(0, "COMPLETE", AdapterParams(8, 8.0, 1e-3), DeployParams("int8"), "key", values, {},
                         None, None)
    assert more_requests(record, spare_s) == more
