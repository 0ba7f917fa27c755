"""What artifacts are asked: real token ids, of the right lengths."""

from __future__ import annotations

from pathlib import Path

from autotune.pipeline.tokens import Example, TokenizedData
from autotune.questions import (
    Questions,
    Target,
    Workload,
    answers_task,
    fixed_prompts,
    latency_task,
    probe_request,
    row_order,
    stopping,
)
from objectives.request import parse_request

ROWS = tuple(Example((2, 10 + i, 11 + i), (30, 1), f"row {i}", "a") for i in range(6))
CHOICE = TokenizedData("choice", False, 1, ROWS, ROWS, (), ("a", "ab"), ((30,), (30, 31)))
FREE = TokenizedData("generate", False, 1, ROWS, ROWS, ())
ASK = Questions(7, ("\n",), (), 0.95, Path(), 0.002)
FIXED = Workload(prompt_tokens=8, new_tokens=4, from_rows=False, samples=5, warmup=1)
ROWS_OWN = Workload(None, None, from_rows=True, samples=5, warmup=1)


def test_prompts_of_fixed_length_are_made_of_the_rows_own_tokens() -> None:
    prompts = fixed_prompts(CHOICE, 8)
    assert {len(p) for p in prompts} == {8}
    assert prompts[0] == [2, 10, 11, 2, 11, 12, 2, 12]
    assert len({tuple(p) for p in prompts}) == len(prompts)


def test_the_end_of_sequence_is_ignored_on_fixed_lengths_alone() -> None:
    assert latency_task(CHOICE, FIXED, ASK)["ignore_eos"] is True
    own = latency_task(FREE, ROWS_OWN, ASK)
    assert own["ignore_eos"] is False
    assert own["stop_ids"] == [1]
    assert own["new_tokens"] == 7
    assert own["prompts"] == [list(e.prompt) for e in ROWS]
    assert latency_task(CHOICE, ROWS_OWN, ASK)["new_tokens"] == 3  # the longest label and its end


def test_every_request_is_one_that_the_probe_accepts(tmp_path: Path) -> None:
    for data in (CHOICE, FREE):
        for workload in (FIXED, ROWS_OWN):
            tasks = [latency_task(data, workload, ASK), answers_task(data, ASK, row_order(data))]
            request = probe_request(tmp_path, Target("cpu", {}, 2), 1, tasks)
            assert len(parse_request(request).tasks) == 2
    stopping_too = stopping(answers_task(CHOICE, ASK, row_order(CHOICE)), CHOICE, row_order(CHOICE), [(2, 0), (4, 1)])
    parse_request(probe_request(tmp_path, Target("cpu", {}, 2), 1, [stopping_too]))


def test_the_context_holds_the_longest_of_rows_answers_and_workload() -> None:
    assert FIXED.tokens_needed(CHOICE, 7) == 12
    assert ROWS_OWN.tokens_needed(FREE, 7) == 3 + 8
