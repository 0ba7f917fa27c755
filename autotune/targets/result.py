"""What a probe returned, put together from its events; the same for every target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotune.errors import ProbeError
from autotune.pipeline.progress import Report, silent
from objectives.accuracy import Generation
from objectives.latency import LatencySample

_NOTES = {"choice": "scoring", "generate": "generating", "latency": "timing"}


@dataclass(frozen=True)
class ProbeResult:
    """One whole measurement of one artifact.

    ``samples``, ``predictions`` (indices into the task's labels) and ``generations`` follow the order of the
    request, all tasks of a kind after each other; warm-up samples are left out. ``peak_rss_mb`` is the
    process's peak over all tasks. ``facts`` are the probe's versions and machine. ``stopped_after`` is the number
    of rows that a choice task answered before it stopped for too few right ones, its first; None where none did.
    """

    load_ms: float
    peak_rss_mb: float
    samples: tuple[LatencySample, ...]
    predictions: tuple[int, ...]
    generations: tuple[Generation, ...]
    facts: dict[str, Any]
    stopped_after: int | None = None


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
    _ended: bool = False

    def feed(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "start":
                self._facts = {"versions": event["versions"], "machine": event["machine"]}
            case "loaded":
                self._load_ms = event["load_ms"]
                self._facts["device"] = event["device"]
            case "prediction":
                self._add(event, event["row"], int(event["label"]))
            case "generation":
                self._add(event, event["row"], Generation(tuple(event["ids"]), event["text"]))
            case "stopped":
                self._stop(event["task"], event["rows"])
            case "sample":
                if not event["warmup"]:
                    self._add(event, len(self._rows.get(event["task"], {})), _sample(event))
            case "memory":
                self._peaks[event["task"]] = event["peak_rss_mb"]
                self._progress(event["task"], self._expected(event["task"]))
            case "progress":
                self._progress(event["task"], event["done"])
            case "error":
                self.error = f"{event['stage']}: {event['reason']}"
            case "end":
                self._ended = bool(event["ok"])

    def missing(self) -> str | None:
        """What is not there yet, as part of a sentence; None when the measurement is whole."""
        if self._load_ms is None:
            return "the artifact was not loaded"
        for i, task in enumerate(self.tasks):
            expected = int(task["samples"]) if task["kind"] == "latency" else self._rows_asked(i)
            got = self._rows.get(i, {})
            if len(got) < expected or not all(row in got for row in range(expected)):
                return f"task {i} ({task['kind']}) gave {len(got)} of {expected} rows"
            if i not in self._peaks:
                return f"task {i} ({task['kind']}) has no peak memory"
        return None if self._ended else "the end event is missing"

    def result(self) -> ProbeResult:
        """Raises ProbeError when the probe reported an error or anything is missing."""
        problem = self.error or self.missing()
        if problem or self._load_ms is None:
            raise ProbeError(problem or "the artifact was not loaded")
        return ProbeResult(
            load_ms=self._load_ms,
            peak_rss_mb=max(self._peaks.values()),
            samples=tuple(self._of("latency")),
            predictions=tuple(self._of("choice")),
            generations=tuple(self._of("generate")),
            facts=self._facts,
            stopped_after=next(iter(self._stopped.values()), None),
        )

    def _stop(self, task: int, rows: int) -> None:
        looks = [look[0] for look in self.tasks[task].get("stop", ())]
        if rows not in looks:
            raise ProbeError(f"task {task} stopped after {rows} rows; accepted: {looks}")
        self._stopped[task] = rows

    def _rows_asked(self, task: int) -> int:
        return self._stopped.get(task, len(self.tasks[task]["prompts"]))

    def _add(self, event: Mapping[str, Any], row: int, value: Any) -> None:
        rows = self._rows.setdefault(event["task"], {})
        if row in rows:
            raise ProbeError(f"task {event['task']} gave row {row} twice")
        rows[row] = value

    def _of(self, kind: str) -> list[Any]:
        chosen = [i for i, task in enumerate(self.tasks) if task["kind"] == kind]
        return [self._rows[i][row] for i in chosen for row in sorted(self._rows[i])]

    def _expected(self, task: int) -> int:
        request = self.tasks[task]
        if request["kind"] == "latency":
            return int(request["warmup"]) + int(request["samples"])
        return len(request["prompts"])

    def _progress(self, task: int, done: int) -> None:
        before = sum(map(self._expected, range(task)))
        total = sum(map(self._expected, range(len(self.tasks))))
        self.report(min(before + done, total), total, _NOTES[self.tasks[task]["kind"]])


def _sample(event: Mapping[str, Any]) -> LatencySample:
    return LatencySample(
        prompt_tokens=event["prompt_tokens"], new_tokens=event["new_tokens"], ttft_ms=event["ttft_ms"],
        token_ms=tuple(event["token_ms"]), latency_ms=event["latency_ms"],
    )
