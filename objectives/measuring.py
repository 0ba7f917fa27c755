"""A bundle measured on this device: its answers to the sample rows, its timings, its memory, its size."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from objectives import exact, session
from objectives.base import parse_key
from objectives.bundle import Bundle, Sample
from objectives.exact import Interval
from objectives.fresh import run_probe
from objectives.latency import VALUES, values
from objectives.request import PROTOCOL
from objectives.result import ProbeResult
from objectives.size import size_mb
from objectives.steadiness import Steadiness, borne_out, steadiness
from objectives.templates import render, template_columns
from objectives.texts import encode

_STANDING = ("ttft_ms.p50", "ttft_ms.p95", "tpot_ms.p50", "latency_ms.p50", "latency_ms.p95", "tokens_per_s.p50")
_PROMPTS = 4

Say = Callable[[str], None]


@dataclass(frozen=True)
class Timed:
    """``values`` by key; ``facts`` are the device's machine, versions and settings."""

    values: Mapping[str, Interval]
    steadiness: Steadiness
    facts: Mapping[str, Any]


def answers(bundle: Bundle, samples: Sequence[Sample]) -> tuple[list[str], Mapping[str, Any]]:
    """What this device answers to each sample row's text, through the bundle's own tokenizer, and the probe's facts.

    Raises ProbeFailure where the model does not run here.
    """
    task = bundle.task
    asked: dict[str, Any] = {"texts": [sample.prompt for sample in samples], "chat": task.chat}
    if task.kind == "choice":
        result = _probe(bundle, {"kind": "choice", **asked, "labels": [list(ids) for ids in task.label_ids],
                                 "eos_id": task.eos_id})
        return [task.labels[label] for label in result.predictions], result.facts
    result = _probe(bundle, {"kind": "generate", **asked, "max_new_tokens": task.max_new_tokens,
                             "stop_ids": [task.eos_id], "stop_strings": list(task.stop)})
    return [generation.text for generation in result.generations], result.facts


def timed(bundle: Bundle, samples: Sequence[Sample], say: Say) -> Timed:
    """Latency at the bundle's workload with requests enough for both ends of every percentile, and memory and load
    time, from several fresh processes where a limit is on them. Raises ProbeFailure."""
    keys = _timed_keys(bundle)
    prompts = _prompts(bundle, samples)
    wanted = exact.requests_needed((exact.quantile_of(parse_key(key)[1]) for key in keys), bundle.confidence)
    say(f"timing {wanted} requests or more, for at most "
        f"{bundle.workload.max_seconds + bundle.workload.sustain_seconds:.0f} s")
    first = _probe(bundle, _latency_task(bundle, prompts, wanted))
    assert first.timing
    steady = steadiness(first.timing)
    found = {key: _of_requests(key, first, steady, bundle.confidence) for key in keys
             if values(key.partition(".")[0], first.samples)}
    return Timed(found | _readings(bundle, prompts, first, say), steady, first.facts)


def size(bundle: Bundle) -> Interval:
    found = size_mb(bundle.model)
    return Interval(found, found, found, 1)


def _timed_keys(bundle: Bundle) -> list[str]:
    limited = [limit.objective for limit in bundle.limits if limit.objective.partition(".")[0] in VALUES]
    return list(dict.fromkeys([*_STANDING, *limited]))


def _of_requests(key: str, result: ProbeResult, steady: Steadiness, confidence: float) -> Interval:
    objective, statistic = parse_key(key)
    samples = values(objective.name, result.samples)
    quantile = exact.quantile_of(statistic)
    found = exact.mean(samples, confidence) if quantile is None else exact.percentile(samples, quantile, confidence)
    low, high = borne_out(found.low, found.high, steady, objective.direction)
    return Interval(found.value, low, high, found.n)


def _readings(
    bundle: Bundle, prompts: Sequence[Sequence[int]], first: ProbeResult, say: Say
) -> dict[str, Interval]:
    """The median of several processes where a limit is on either, else the one reading there is."""
    limited = {limit.objective for limit in bundle.limits} & {"peak_rss_mb", "load_ms"}
    runs = [first]
    if limited:
        more = exact.samples_needed(0.5, bundle.confidence) - 1  # 5 at 95 %: then the extremes are the median's ends
        say(f"opening the model {more} times more, for its memory and load time")
        task = {**_latency_task(bundle, prompts, 1), "max_seconds": 0.0, "sustain_seconds": 0.0}
        runs += [_probe(bundle, task) for _ in range(more)]
    of = {"peak_rss_mb": [run.peak_rss_mb for run in runs], "load_ms": [run.load_ms for run in runs]}
    return {key: exact.percentile(read, 0.5, bundle.confidence) for key, read in of.items()}


def _latency_task(bundle: Bundle, prompts: Sequence[Sequence[int]], samples: int) -> dict[str, Any]:
    work, fixed = bundle.workload, bundle.workload.prompt_tokens is not None
    task = {"kind": "latency", "prompts": [list(ids) for ids in prompts], "new_tokens": work.new_tokens,
            "ignore_eos": fixed, "samples": samples, "max_seconds": work.max_seconds,
            "sustain_seconds": work.sustain_seconds}
    return task if fixed else {**task, "stop_ids": [bundle.task.eos_id]}


def _prompts(bundle: Bundle, samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    """The sample rows' own ids, or prompts of the workload's length read from them one after the other. Without sample
    rows they are made of the prompt template with its columns' names in their places."""
    texts = [sample.prompt for sample in samples] or [_bare(bundle.task.prompt)]
    rows = encode(session.tokenizer(str(bundle.model)), bundle.model, texts, chat=bundle.task.chat)
    length = bundle.workload.prompt_tokens
    if length is None:
        return rows
    starts = range(min(_PROMPTS, len(rows)))
    streams = (itertools.chain.from_iterable(itertools.islice(itertools.cycle(rows), start, None)) for start in starts)
    return [tuple(itertools.islice(stream, length)) for stream in streams]


def _bare(template: str) -> str:
    return render(template, {column: column for column in template_columns(template)})


def _probe(bundle: Bundle, task: Mapping[str, Any]) -> ProbeResult:
    request = {
        "protocol": PROTOCOL, "artifact": str(bundle.model), "provider": bundle.provider,
        "provider_options": dict(bundle.provider_options), "threads": bundle.threads,
        "min_generator_length": session.min_generator_length(bundle.model), "tasks": [task],
    }
    return run_probe(request, workdir=Path(tempfile.gettempdir()))
