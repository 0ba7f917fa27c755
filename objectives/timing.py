"""What a latency task gave: its requests in blocks, of the artifact and of its reference, and what lay beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from objectives.latency import LatencySample
from objectives.models import Of


@dataclass(frozen=True)
class Asked:
    """The workload and how it was to be timed: how many prompts, the shortest and longest, and the rest of the task."""

    prompts: int
    prompt_tokens: tuple[int, int]
    new_tokens: int
    ignore_eos: bool
    samples: int
    max_seconds: float
    resident: bool
    sustain_seconds: float


@dataclass(frozen=True)
class WarmUp:
    """Requests before timing, and whether their times had become flat by the last."""

    of: Of
    requests: int
    flat: bool


@dataclass(frozen=True)
class Block:
    """A few requests of one model in a row; ``at`` are seconds since timing began.

    ``outside_cores`` and ``steal`` are the cores that other processes and a hypervisor took meanwhile, ``throttled``
    how often cores were slowed for their heat; None where the system does not tell.
    """

    of: Of
    round: int
    at: float
    seconds: float
    outside_cores: float
    steal: float | None
    mhz: float | None
    temperature_c: float | None
    throttled: int | None
    disturbed: bool
    samples: tuple[LatencySample, ...]


@dataclass(frozen=True)
class Timing:
    """``blocks`` in the order in which they were timed; with a reference a round is ABBA, without it one block."""

    asked: Asked
    warm_ups: tuple[WarmUp, ...]
    blocks: tuple[Block, ...]

    @property
    def has_reference(self) -> bool:
        return any(block.of == "reference" for block in self.blocks)


def asked_of(task: Mapping[str, Any]) -> Asked:
    """Of a latency task as the probe was given it."""
    lengths = [len(prompt) for prompt in task["prompts"]]
    return Asked(len(lengths), (min(lengths), max(lengths)), task["new_tokens"], task["ignore_eos"], task["samples"],
                 task["max_seconds"], task.get("resident", True), task.get("sustain_seconds", 0))


def block_of(event: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> Block:
    """Of a block's event, or of a stored block, and its samples'."""
    known = ("of", "round", "at", "seconds", "outside_cores", "steal", "mhz", "temperature_c", "throttled",
             "disturbed")
    return Block(**{name: event[name] for name in known}, samples=tuple(map(sample_of, samples)))


def sample_of(event: Mapping[str, Any]) -> LatencySample:
    return LatencySample(
        prompt_tokens=event["prompt_tokens"], new_tokens=event["new_tokens"], ttft_ms=event["ttft_ms"],
        token_ms=tuple(event["token_ms"]), latency_ms=event["latency_ms"],
    )


def from_json(raw: Mapping[str, Any]) -> Timing:
    """What ``dataclasses.asdict`` and JSON made of a Timing."""
    asked = raw["asked"]
    low, high = asked["prompt_tokens"]
    return Timing(Asked(**{**asked, "prompt_tokens": (low, high)}), tuple(WarmUp(**w) for w in raw["warm_ups"]),
                  tuple(block_of(b, b["samples"]) for b in raw["blocks"]))


def lacking(blocks: Iterable[Mapping[str, Any]], got: Mapping[int, Sequence[Any]], *, reference: bool) -> str | None:
    """What the events of a task lack, as part of a sentence; None where there are whole rounds and all samples."""
    events = list(blocks)
    short = [i for i, event in enumerate(events) if len(got.get(i, ())) < event["requests"]]
    if short:
        return f"gave {len(got.get(short[0], ()))} of {events[short[0]]['requests']} requests of block {short[0]}"
    if not events or (reference and len(events) % 4):
        return f"gave {len(events)} blocks, no whole rounds"
    return None
