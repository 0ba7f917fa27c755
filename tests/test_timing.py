"""Half a timing is no timing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from objectives.result import Collector, ProbeFailure
from objectives.timing import asked_of
from tests.test_probe import LATENCY
from tests.timings import ABBA, sample

TASK = {**LATENCY, "reference": {"artifact": "other"}}


def events(blocks: int = 4, requests: int = 2) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"event": "start", "versions": {}, "machine": {}, "settings": {"threads": 2}},
        {"event": "loaded", "load_ms": 5.0, "device": "CPU"},
        {"event": "warmed", "task": 0, "of": "artifact", "requests": 3, "flat": True},
        {"event": "memory", "task": 0, "peak_rss_mb": 50.0},
    ]
    for i in range(blocks):
        found.append({"event": "block", "task": 0, "block": i, "of": ABBA[i % 4], "round": i // 4, "at": float(i),
                      "seconds": 0.5, "requests": requests, "outside_cores": 0.0, "steal": None, "mhz": 2400.0,
                      "temperature_c": None, "throttled": None, "disturbed": False})
        found += [{"event": "sample", "task": 0, "of": ABBA[i % 4], "block": i, **asdict(sample(100.0 + i))}
                  for _ in range(requests)]
    return [*found, {"event": "end", "ok": True}]


def collected(given: list[dict[str, Any]], task: dict[str, Any] = TASK) -> Collector:
    collector = Collector([task])
    for event in given:
        collector.feed(event)
    return collector


def test_a_whole_timing_is_put_together_block_by_block() -> None:
    result = collected(events()).result()
    assert result.timing
    assert [b.of for b in result.timing.blocks] == list(ABBA)
    assert [b.samples[0].latency_ms for b in result.timing.blocks] == [100, 101, 102, 103]
    assert [s.latency_ms for s in result.samples] == [100, 100, 103, 103]
    assert result.timing.asked == asked_of(TASK)
    assert result.timing.warm_ups[0].requests == 3
    assert result.facts["settings"] == {"threads": 2}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (events(blocks=0), r"task 0 \(latency\) gave 0 blocks, no whole rounds"),
        (events(blocks=6), "gave 6 blocks, no whole rounds"),
        ([e for i, e in enumerate(events()) if i != 6], "gave 1 of 2 requests of block 0"),
        ([e for e in events() if e["event"] != "memory"], "has no peak memory"),
    ],
)
def test_what_is_missing_leaves_no_result(given: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(ProbeFailure, match=reason):
        collected(given).result()


def test_without_a_reference_any_number_of_blocks_is_whole() -> None:
    assert collected([e if e["event"] not in ("block", "sample") else {**e, "of": "artifact"}
                      for e in events(blocks=3)], LATENCY).result().timing
