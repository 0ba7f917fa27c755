"""Blocks by turns, on real artifacts: their order, what they ask, and what is made again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotune.ratio import ratio
from autotune.targets.local import run_probe
from objectives import quiet
from objectives.interleave import Interleaver
from objectives.models import Models
from objectives.quiet import Load
from objectives.request import LatencyTask, parse_request
from objectives.steadiness import steadiness, used_blocks
from tests import artifacts
from tests.test_probe import LATENCY, for_artifact, probe
from tests.timings import busy

ABBA = ["artifact", "reference", "reference", "artifact"]


def timed(**changes: Any) -> dict[str, Any]:
    """A request that times the int8 artifact by turns with the fp32 one."""
    task = {**LATENCY, "max_seconds": 60, "reference": {"artifact": str(artifacts.artifact())}, **changes}
    return for_artifact(task, artifact=str(artifacts.artifact("int8")))


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [e for e in events if e["event"] == kind]


@pytest.fixture(autouse=True)
def _garbage() -> Iterator[None]:
    yield
    gc.unfreeze()


class Run:
    """One task in this process; ``loads`` are what each block is said to have had beside it, then nothing."""

    def __init__(self, request: dict[str, Any], monkeypatch: pytest.MonkeyPatch, loads: list[float]) -> None:
        self.events: list[dict[str, Any]] = []
        self.progress: list[tuple[int, int]] = []
        given = iter(loads)
        monkeypatch.setattr(quiet, "between", lambda start, end: Load(1.0, next(given, 0.0), None, None))
        asked = parse_request(request)
        task = asked.tasks[0]
        assert isinstance(task, LatencyTask)
        Interleaver(task, Models(asked), self.say, lambda done, wanted: self.progress.append((done, wanted))).run()
        self.blocks = of_kind(self.events, "block")

    def say(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})

    def prompts(self, block: int) -> list[int]:
        return [e["prompt_tokens"] for e in of_kind(self.events, "sample") if e["block"] == block]


def test_rounds_are_abba_and_every_block_has_its_samples_and_its_surroundings(tmp_path: Path) -> None:
    code, events, _ = probe(tmp_path, timed(samples=16, max_seconds=20))
    assert code == 0
    blocks, samples = of_kind(events, "block"), of_kind(events, "sample")
    assert len(blocks) % 4 == 0
    assert len(blocks) >= 16
    assert [b["of"] for b in blocks] == ABBA * (len(blocks) // 4)
    assert [b["block"] for b in blocks] == list(range(len(blocks)))
    assert [b["round"] for b in blocks] == [i // 4 for i in range(len(blocks))]
    assert [b["at"] for b in blocks] == sorted(b["at"] for b in blocks)
    for block in blocks:
        own = [s for s in samples if s["block"] == block["block"]]
        assert len(own) == block["requests"] >= 2
        assert {s["of"] for s in own} == {block["of"]}
        assert block["outside_cores"] >= 0
        assert block["seconds"] * 1000 >= sum(s["latency_ms"] for s in own)
    assert {w["of"]: w["requests"] >= 3 for w in of_kind(events, "warmed")} == {"artifact": True, "reference": True}


def test_memory_is_the_artifacts_own(tmp_path: Path) -> None:
    _, events, _ = probe(tmp_path, timed())
    kinds = [(e["event"], e.get("of")) for e in events]
    assert kinds.index(("warmed", "artifact")) < kinds.index(("memory", None)) < kinds.index(("warmed", "reference"))
    assert len(of_kind(events, "memory")) == 1


def test_in_a_round_both_are_asked_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [[5] * n for n in range(3, 30)]
    run = Run(timed(prompts=prompts, samples=4), monkeypatch, [])
    first, second, third, fourth = map(run.prompts, range(4))
    assert first == second
    assert third == fourth
    asked = [len(prompts[i % len(prompts)]) for i in range(2 * len(first))]
    assert first + fourth == asked


def test_a_disturbed_round_is_made_again_with_the_same_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(timed(samples=4), monkeypatch, [0, 0, 0.4, 0])
    assert [b["disturbed"] for b in run.blocks] == [False, False, True, False] + [False] * 4
    assert [b["of"] for b in run.blocks] == ABBA * 2
    assert [run.prompts(i) for i in range(4)] == [run.prompts(i) for i in range(4, 8)]
    assert run.progress == [(0, 4), (4, 4)]


def test_without_a_reference_only_the_disturbed_block_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(for_artifact({**LATENCY, "samples": 4}), monkeypatch, [0.4])
    assert {b["of"] for b in run.blocks} == {"artifact"}
    assert [b["disturbed"] for b in run.blocks] == [True, False, False]


def test_when_the_budget_ends_one_round_was_made_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(timed(samples=10**6, max_seconds=0), monkeypatch, [])
    assert [b["of"] for b in run.blocks] == ABBA


def test_not_resident_only_one_is_open_and_each_is_warmed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[list[str]] = []
    real = Models.use

    def use(self: Models, of: Any) -> Any:
        found = real(self, of)
        opened.append(sorted(self._open))
        return found

    monkeypatch.setattr(Models, "use", use)
    run = Run(timed(samples=8, resident=False), monkeypatch, [])
    assert [b["of"] for b in run.blocks] == ABBA * 2
    assert {len(names) for names in opened} == {1}
    # Opened for the first round, and anew wherever the other's blocks had come between.
    assert [w["of"] for w in of_kind(run.events, "warmed")] == ["artifact", "reference", "artifact", "reference",
                                                               "artifact"]


def test_resident_both_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(timed(samples=8), monkeypatch, [])
    assert [w["of"] for w in of_kind(run.events, "warmed")] == ["artifact", "reference"]


def test_sustained_load_comes_before_the_timing_and_outside_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = Interleaver._request
    monkeypatch.setattr(Interleaver, "_request", lambda self, of, i: asked.append(i) or real(self, of, i))  # type: ignore[func-returns-value]
    plain = Run(timed(samples=2, max_seconds=0), monkeypatch, [])
    without, asked[:] = len(asked), []
    sustained = Run(timed(samples=2, max_seconds=0, sustain_seconds=1), monkeypatch, [])
    assert len(asked) > without + 20
    assert len(sustained.blocks) == len(plain.blocks) == 4


def test_an_artifact_is_as_fast_as_itself(tmp_path: Path) -> None:
    task = {**LATENCY, "samples": 30, "max_seconds": 10, "reference": {"artifact": str(artifacts.artifact())}}
    timing = run_probe(for_artifact(task), workdir=tmp_path).timing
    assert timing
    found = ratio(timing, "latency_ms.p50", confidence=0.9999)
    assert 0.5 < found.value < 2
    if found.n == 1:  # one round is no interval, and one is left alone where others kept the machine busy
        assert any(block.disturbed for block in timing.blocks)
        return
    assert found.low is not None
    assert found.high is not None
    assert found.low < 1 < found.high


def test_a_machine_that_others_keep_busy_is_said_to_be(tmp_path: Path) -> None:
    with busy(2):
        result = run_probe(timed(samples=8, max_seconds=3), workdir=tmp_path)
    assert result.timing
    found = steadiness(result.timing)
    assert found.state == "disturbed"
    assert found.outside_cores > 0.3
    assert len(result.samples) >= 8
    assert any(block.disturbed for block in used_blocks(result.timing))
    assert f"cores in {found.disturbed_blocks} of {found.blocks} blocks" in found.sentence()
