"""What a probe returned, put together from its events; the same for every target, and on the device itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from objectives.accuracy import Generation
from objectives.latency import LatencySample
from objectives.steadiness import used_samples
from objectives.timing import Timing, WarmUp, asked_of, block_of, lacking


class ProbeFailure(RuntimeError):
    """A measurement that failed or is not whole; the message is one sentence."""


class Report(Protocol):
    def __call__(self, done: float, total: float, note: str = "") -> None: ...


def silent(done: float, total: float, note: str = "") -> None:
    """A Report that says nothing."""


_NOTES = {"choice": "scoring", "generate": "generating", "latency": "timing"}


@dataclass(frozen=True)
class ProbeResult:
    """One whole measurement of one artifact.

    ``predictions`` (indices into the task's labels) and ``generations`` follow the order of the request, all tasks
    of a kind after each other. ``timing`` is what the latency task gave, None where there was none. ``peak_rss_mb``
    is the process's peak over all tasks, a reference left out. ``facts`` are the probe's versions, settings and
    machine, and the processor's temperature in °C before and after (None where the system does not tell).
    ``stopped_after`` is the number of rows that a choice task answered before it stopped for too few right ones, its
    first; None where none did.
    """

    load_ms: float
    peak_rss_mb: float
    timing: Timing | None
    predictions: tuple[int, ...]
    generations: tuple[Generation, ...]
    facts: dict[str, Any]
    stopped_after: int | None = None

    @cached_property
    def samples(self) -> tuple[LatencySample, ...]:
        """The artifact's timed requests that count."""
        return used_samples(self.timing) if self.timing else ()


@dataclass
class Collector:
    """Takes a probe's events one by one; ``result`` refuses to make a number of half a measurement."""

    tasks: Sequence[Mapping[str, Any]]
    report: Report = silent
    error: str | None = None
    _facts: dict[str, Any] = field(default_factory=dict)
    _load_ms: float | None = None
    _peaks: dict[int, float] = field(default_factory=dict)
    _rows: dict[int, dict[int, Any]] = field(default_factory=dict)
    _stopped: dict[int, int] = field(default_factory=dict)
    _warm_ups: list[WarmUp] = field(default_factory=list)
    _blocks: list[Mapping[str, Any]] = field(default_factory=list)
    _samples: dict[int, list[Mapping[str, Any]]] = field(default_factory=dict)
    _ended: bool = False

    def feed(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "start":
                self._facts = {name: event[name] for name in ("versions", "machine", "settings")}
                self._facts["temperature_c"] = [event.get("temperature_c")]
            case "loaded":
                self._load_ms = event["load_ms"]
                self._facts["device"] = event["device"]
            case "prediction":
                self._add(event, event["row"], int(event["label"]))
            case "generation":
                self._add(event, event["row"], Generation(tuple(event["ids"]), event["text"]))
            case "stopped":
                self._stop(event["task"], event["rows"])
            case "warmed":
                self._warm_ups.append(WarmUp(event["of"], event["requests"], event["flat"]))
            case "block":
                self._blocks.append(event)
            case "sample":
                self._samples.setdefault(event["block"], []).append(event)
            case "memory":
                self._peaks[event["task"]] = event["peak_rss_mb"]
                if self.tasks[event["task"]]["kind"] != "latency":  # where it comes first
                    self._progress(event["task"], self._expected(event["task"]))
            case "progress":
                self._progress(event["task"], event["done"])
            case "error":
                self.error = f"{event['stage']}: {event['reason']}"
            case "end":
                self._ended = bool(event["ok"])
                self._facts.setdefault("temperature_c", [None]).append(event.get("temperature_c"))
                self._progress(len(self.tasks) - 1, self._expected(len(self.tasks) - 1))

    def missing(self) -> str | None:
        """What is not there yet, as part of a sentence; None when the measurement is whole."""
        if self._load_ms is None:
            return "the artifact was not loaded"
        for i, task in enumerate(self.tasks):
            if task["kind"] == "latency":
                problem = lacking(self._blocks, self._samples, reference="reference" in task)
            else:
                problem = self._missing_rows(i)
            if problem:
                return f"task {i} ({task['kind']}) {problem}"
            if i not in self._peaks:
                return f"task {i} ({task['kind']}) has no peak memory"
        return None if self._ended else "the end event is missing"

    def result(self) -> ProbeResult:
        """Raises ProbeFailure when the probe reported an error or anything is missing."""
        problem = self.error or self.missing()
        if problem or self._load_ms is None:
            raise ProbeFailure(problem or "the artifact was not loaded")
        return ProbeResult(
            load_ms=self._load_ms,
            peak_rss_mb=max(self._peaks.values()),
            timing=self._timing(),
            predictions=tuple(self._of("choice")),
            generations=tuple(self._of("generate")),
            facts=self._facts,
            stopped_after=next(iter(self._stopped.values()), None),
        )

    def _timing(self) -> Timing | None:
        task = next((t for t in self.tasks if t["kind"] == "latency"), None)
        if task is None:
            return None
        blocks = tuple(block_of(event, self._samples[i]) for i, event in enumerate(self._blocks))
        return Timing(asked_of(task), tuple(self._warm_ups), blocks)

    def _missing_rows(self, task: int) -> str | None:
        expected, got = self._rows_asked(task), self._rows.get(task, {})
        if len(got) < expected or not all(row in got for row in range(expected)):
            return f"gave {len(got)} of {expected} rows"
        return None

    def _stop(self, task: int, rows: int) -> None:
        looks = [look[0] for look in self.tasks[task].get("stop", ())]
        if rows not in looks:
            raise ProbeFailure(f"task {task} stopped after {rows} rows; accepted: {looks}")
        self._stopped[task] = rows

    def _rows_asked(self, task: int) -> int:
        return self._stopped.get(task, _rows(self.tasks[task]))

    def _add(self, event: Mapping[str, Any], row: int, value: Any) -> None:
        rows = self._rows.setdefault(event["task"], {})
        if row in rows:
            raise ProbeFailure(f"task {event['task']} gave row {row} twice")
        rows[row] = value

    def _of(self, kind: str) -> list[Any]:
        chosen = [i for i, task in enumerate(self.tasks) if task["kind"] == kind]
        return [self._rows[i][row] for i in chosen for row in sorted(self._rows[i])]

    def _expected(self, task: int) -> int:
        request = self.tasks[task]
        return int(request["samples"]) if request["kind"] == "latency" else _rows(request)

    def _progress(self, task: int, done: int) -> None:
        before = sum(map(self._expected, range(task)))
        total = sum(map(self._expected, range(len(self.tasks))))
        self.report(min(before + done, total), total, _NOTES[self.tasks[task]["kind"]])


def _rows(task: Mapping[str, Any]) -> int:
    return len(task["prompts"] if "prompts" in task else task["texts"])
