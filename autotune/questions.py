"""What every artifact of a study is asked: the probe's tasks, made from the study's token ids."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from autotune.pipeline.tokens import Example, TokenizedData
from autotune.search.sequential import shuffled
from objectives.request import PROTOCOL

_DISTINCT_PROMPTS = 4
#: Bytes of memory that an open artifact takes, by its size on disk.
_OPEN_COPIES = 2.5
#: The budget of a screening's timing: it lasts as long as weights take to be read, again and again.
_SCREENING_S, _SCREENING_S_PER_GB = 15.0, 60.0


@dataclass(frozen=True)
class Target:
    """Where an artifact runs."""

    provider: str
    provider_options: Mapping[str, str]
    threads: int


@dataclass(frozen=True)
class Workload:
    """What latency is measured on: fixed token counts, or the validation rows' own prompts (``from_rows``)."""

    prompt_tokens: int | None
    new_tokens: int | None
    from_rows: bool
    samples: int

    def tokens_needed(self, data: TokenizedData, max_new_tokens: int) -> int:
        """The longest prompt and answer, in tokens, that a generator has to hold."""
        rows = max(len(e.prompt) for e in (*data.valid, *data.test))
        answers = max((len(ids) for ids in data.label_ids), default=max_new_tokens) + 1
        fixed = (self.prompt_tokens or 0) + (self.new_tokens or 0)
        trained = max(len(e.prompt) + len(e.answer) for e in data.train)
        return max(rows + max(answers, self.new_tokens or 0), fixed, trained)


@dataclass(frozen=True)
class Questions:
    """``asked`` are the keys of every objective that is asked for or constrained; ``metrics_dir`` is where
    the study's own metric functions lie; ``stop_error`` is the chance that stopping early may err with, 0 for never.
    """

    max_new_tokens: int
    stop: tuple[str, ...]
    asked: tuple[str, ...]
    confidence: float
    metrics_dir: Path
    stop_error: float


def row_order(data: TokenizedData) -> tuple[int, ...]:
    """The order in which validation rows are asked: mixed, so that the first of them speak for all."""
    return shuffled(len(data.valid)) if data.task == "choice" else tuple(range(len(data.valid)))


def answers_task(data: TokenizedData, questions: Questions, order: Sequence[int]) -> dict[str, Any]:
    """The task that asks for the answer of every validation row, in that order."""
    return {"prompts": [list(data.valid[row].prompt) for row in order], **_answering(data, questions)}


def text_task(data: TokenizedData, rows: Sequence[Example], questions: Questions) -> dict[str, Any]:
    """The task that asks for the answer to each row's text, which the artifact's own tokenizer encodes."""
    return {"texts": [row.prompt_text for row in rows], "chat": data.chat, **_answering(data, questions)}


def _answering(data: TokenizedData, questions: Questions) -> dict[str, Any]:
    if data.task == "choice":
        return {"kind": "choice", "labels": [list(ids) for ids in data.label_ids], "eos_id": data.eos_id}
    return {"kind": "generate", "max_new_tokens": questions.max_new_tokens, "stop_ids": [data.eos_id],
            "stop_strings": list(questions.stop)}


def stopping(
    task: Mapping[str, Any], data: TokenizedData, order: Sequence[int], rule: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """A choice task that ends after ``rows`` rows with at most so many right, for each pair of ``rule``."""
    expected = [data.labels.index(data.valid[row].answer_text) for row in order]
    return {**task, "expected": expected, "stop": [list(look) for look in rule]}


@dataclass(frozen=True)
class Reference:
    """An artifact that another is timed by turns with."""

    artifact: Path
    min_generator_length: int


def latency_task(
    data: TokenizedData, workload: Workload, questions: Questions, *, samples: int | None = None, max_seconds: float,
    reference: Reference | None = None, resident: bool = True, sustain_seconds: float = 0.0,
) -> dict[str, Any]:
    """The task that times requests; the end of sequence is ignored on fixed lengths alone.

    ``samples`` are the undisturbed requests wanted, the workload's where None; ``max_seconds`` bound the whole task,
    ``sustain_seconds`` of load before it left out. See `objectives.probe` for the others.
    """
    common: dict[str, Any] = {"kind": "latency", "samples": samples or workload.samples, "max_seconds": max_seconds,
                              "resident": resident, "sustain_seconds": sustain_seconds}
    if reference:
        common["reference"] = {"artifact": str(reference.artifact),
                               "min_generator_length": reference.min_generator_length}
    if workload.from_rows:
        longest = max((len(ids) + 1 for ids in data.label_ids), default=questions.max_new_tokens)
        return {**common, "prompts": [list(e.prompt) for e in data.valid], "ignore_eos": False,
                "new_tokens": workload.new_tokens or longest, "stop_ids": [data.eos_id]}
    assert workload.prompt_tokens
    assert workload.new_tokens
    return {**common, "prompts": fixed_prompts(data, workload.prompt_tokens), "ignore_eos": True,
            "new_tokens": workload.new_tokens}


def screening_seconds(*sizes: int) -> float:
    """The budget for timing artifacts of these sizes in bytes."""
    return _SCREENING_S + _SCREENING_S_PER_GB * sum(sizes) / 1e9


def room_for(size: int, reference: int, available: int) -> Literal["both", "one", "none"]:
    """How many of an artifact and its reference fit in ``available`` memory at once; sizes on disk, all in bytes."""
    if _OPEN_COPIES * (size + reference) <= available:
        return "both"
    return "one" if _OPEN_COPIES * max(size, reference) <= available else "none"


def fixed_prompts(data: TokenizedData, length: int) -> list[list[int]]:
    """A few prompts of exactly ``length`` real tokens, made by reading validation rows one after the other."""
    prompts = []
    for start in range(min(_DISTINCT_PROMPTS, len(data.valid))):
        rows = itertools.islice(itertools.cycle(data.valid), start, None)
        stream = itertools.chain.from_iterable(e.prompt for e in rows)
        prompts.append(list(itertools.islice(stream, length)))
    return prompts


def probe_request(
    artifact: Path, target: Target, min_generator_length: int, tasks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        "protocol": PROTOCOL, "artifact": str(artifact), "provider": target.provider,
        "provider_options": dict(target.provider_options), "threads": target.threads,
        "min_generator_length": min_generator_length, "tasks": list(tasks),
    }


def target_fingerprint(target: Target, machine: Mapping[str, Any]) -> dict[str, Any]:
    """What a stored latency holds for: another machine, provider or thread count measures anew."""
    return {**asdict(target), "provider_options": dict(target.provider_options), "machine": dict(machine)}
