"""What artifacts are asked: real token ids, of the right lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autotune.pipeline.tokens import Example, TokenizedData
from autotune.questions import (
    Questions,
    Reference,
    Target,
    Workload,
    answers_task,
    fixed_prompts,
    latency_task,
    probe_request,
    room_for,
    row_order,
    screening_seconds,
    stopping,
)
from autotune.storage.entry_key import Key
from autotune.storage.keys import timed_task
from objectives.request import LatencyTask, parse_request

ROWS = tuple(Example((2, 10 + i, 11 + i), (30, 1), f"row {i}", "a") for i in range(6))
CHOICE = TokenizedData("choice", False, 1, ROWS, ROWS, (), ("a", "ab"), ((30,), (30, 31)))
FREE = TokenizedData("generate", False, 1, ROWS, ROWS, ())
ASK = Questions(7, ("\n",), (), 0.95, Path(), 0.002)
FIXED = Workload(prompt_tokens=8, new_tokens=4, from_rows=False, samples=5)
ROWS_OWN = Workload(None, None, from_rows=True, samples=5)


def test_prompts_of_fixed_length_are_made_of_the_rows_own_tokens() -> None:
    prompts = fixed_prompts(CHOICE, 8)
    assert {len(p) for p in prompts} == {8}
    assert prompts[0] == [2, 10, 11, 2, 11, 12, 2, 12]
    assert len({tuple(p) for p in prompts}) == len(prompts)


def test_the_end_of_sequence_is_ignored_on_fixed_lengths_alone() -> None:
    assert latency_task(CHOICE, FIXED, ASK, max_seconds=9)["ignore_eos"] is True
    own = latency_task(FREE, ROWS_OWN, ASK, max_seconds=9)
    assert own["ignore_eos"] is False
    assert own["stop_ids"] == [1]
    assert own["new_tokens"] == 7
    assert own["prompts"] == [list(e.prompt) for e in ROWS]
    assert latency_task(CHOICE, ROWS_OWN, ASK, max_seconds=9)["new_tokens"] == 3  # the longest label and its end


def test_every_request_is_one_that_the_probe_accepts(tmp_path: Path) -> None:
    for data in (CHOICE, FREE):
        for workload in (FIXED, ROWS_OWN):
            tasks = [latency_task(data, workload, ASK, max_seconds=9), answers_task(data, ASK, row_order(data))]
            request = probe_request(tmp_path, Target("cpu", {}, 2), 1, tasks)
            assert len(parse_request(request).tasks) == 2
    stopping_too = stopping(answers_task(CHOICE, ASK, row_order(CHOICE)), CHOICE, row_order(CHOICE), [(2, 0), (4, 1)])
    parse_request(probe_request(tmp_path, Target("cpu", {}, 2), 1, [stopping_too]))


def test_a_certificates_timing_is_asked_for_with_its_own_figures(tmp_path: Path) -> None:
    task = latency_task(CHOICE, FIXED, ASK, samples=93, max_seconds=600, sustain_seconds=120, resident=False,
                        reference=Reference(tmp_path / "other", 512))
    parsed = parse_request(probe_request(tmp_path, Target("cpu", {}, 2), 1, [task])).tasks[0]
    assert isinstance(parsed, LatencyTask)
    assert (parsed.samples, parsed.max_seconds, parsed.sustain_seconds, parsed.resident) == (93, 600, 120, False)
    assert parsed.reference
    assert (parsed.reference.artifact, parsed.reference.min_generator_length) == (tmp_path / "other", 512)


def test_a_reference_is_beside_the_artifact_where_memory_allows_or_in_its_place() -> None:
    gb = 10**9
    assert room_for(1 * gb, 3 * gb, 10 * gb) == "both"
    assert room_for(1 * gb, 3 * gb, 9 * gb) == "one"
    assert room_for(1 * gb, 3 * gb, 7 * gb) == "none"
    assert room_for(3 * gb, 1 * gb, 7 * gb) == "none"
    assert screening_seconds(1 * gb, 3 * gb) > screening_seconds(1 * gb) > screening_seconds()


def test_a_timing_is_named_by_what_is_measured_and_not_by_where_it_lies(tmp_path: Path) -> None:
    key, other = Key("point", "a" * 32), Key("point", "b" * 32)

    def named(folder: str, key: Key | None, **changes: Any) -> Any:
        task = latency_task(CHOICE, FIXED, ASK, **{"max_seconds": 9, "reference": Reference(tmp_path / folder, 1),
                                                   **changes})
        return timed_task(task, key)

    assert named("x", key) == named("y", key, resident=False, max_seconds=70)
    assert named("x", key, reference=None) == named("x", key)  # there was no memory for it
    assert named("x", key) not in (named("x", other), named("x", None), named("x", key, samples=6))
    assert str(tmp_path) not in str(named("x", key))


def test_the_context_holds_the_longest_of_rows_answers_and_workload() -> None:
    assert FIXED.tokens_needed(CHOICE, 7) == 12
    assert ROWS_OWN.tokens_needed(FREE, 7) == 3 + 8
