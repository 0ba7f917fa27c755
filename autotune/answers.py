"""What an artifact answered: stored as the probe gave it, and made into Measurements by key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from autotune.measure import from_probe
from autotune.pipeline.tokens import TokenizedData
from autotune.ratio import ratio
from autotune.stats import Measurement
from autotune.trials import Timed
from objectives.accuracy import Generation
from objectives.latency import VALUES
from objectives.result import ProbeResult
from objectives.steadiness import steadiness
from objectives.timing import from_json

#: Every run measures these, asked for or not.
_TIMED = ("ttft_ms", "tpot_ms", "latency_ms", "tokens_per_s")
_STANDING = tuple(f"{name}.{statistic}" for name in _TIMED for statistic in ("p50", "p95"))
_FILE = "measurement.json"


def texts(result: ProbeResult, data: TokenizedData, order: Sequence[int]) -> list[str]:
    """The artifact's answers as text, one a validation row; ``order`` are the rows as they were asked."""
    by_row = dict(zip(order, given(result, data), strict=True))
    return [by_row[row] for row in range(len(data.valid))]


def given(result: ProbeResult, data: TokenizedData) -> list[str]:
    """The artifact's answers as text, in the order in which they were asked for."""
    if data.task == "choice":
        return [data.labels[i] for i in result.predictions]
    return [g.text for g in result.generations]


def right(result: ProbeResult, data: TokenizedData, order: Sequence[int]) -> int:
    """How many of the answered rows have the right label."""
    answered = zip(order, result.predictions, strict=False)
    return sum(data.labels[label] == data.valid[row].answer_text for row, label in answered)


def metric_names(data: TokenizedData, asked: Sequence[str]) -> list[str]:
    """The metrics of the answers: the task's own, and the study's functions and evaluate metrics."""
    standing = ["accuracy", "macro_f1"] if data.task == "choice" else ["exact_match"]
    return standing + [key for key in asked if ":" in key]


def system_measurements(
    result: ProbeResult, asked: Sequence[str], confidence: float
) -> dict[str, Measurement]:
    """Latency (of the requests that count), memory and load by key. A standing one that no request gave is left out."""
    samples, found = result.samples, {}
    timed = [key for key in asked if key.partition(".")[0] in VALUES]
    for key in dict.fromkeys([*_STANDING, *timed] if samples else ()):
        name = key.partition(".")[0]
        if key in timed or any(VALUES[name](s) is not None for s in samples):
            found[key] = from_probe(key, result, confidence)
    for key in ("peak_rss_mb", "load_ms"):
        found[key] = from_probe(key, result, confidence)
    return found


def timed(result: ProbeResult, asked: Sequence[str], confidence: float, reference: str) -> Timed | None:
    """How far the latency can be trusted; ``reference`` is the label of what it may have been timed against."""
    timing = result.timing
    if timing is None:
        return None
    if not timing.has_reference:
        return Timed(steadiness(timing), None, {})
    ratios = {}
    for key in (*(f"{name}.p50" for name in _TIMED), *(key for key in asked if key.partition(".")[0] in VALUES)):
        with suppress(ValueError):  # answers of one token have no time per further token
            ratios[key] = ratio(timing, key, confidence)
    return Timed(steadiness(timing), reference, ratios)


def store(folder: Path, result: ProbeResult, size_bytes: int) -> None:
    """Write the raw samples and answers, from which every number can be computed again."""
    record = {"size_bytes": size_bytes, "probe": asdict(result)}
    (folder / _FILE).write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")


def load(folder: Path) -> tuple[ProbeResult, int]:
    """What the probe returned, and the artifact's size in bytes."""
    record = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    raw = record["probe"]
    result = ProbeResult(
        load_ms=raw["load_ms"],
        peak_rss_mb=raw["peak_rss_mb"],
        timing=from_json(raw["timing"]) if raw["timing"] else None,
        predictions=tuple(raw["predictions"]),
        generations=tuple(Generation(tuple(g["ids"]), g["text"]) for g in raw["generations"]),
        facts=raw["facts"],
        stopped_after=raw["stopped_after"],
    )
    return result, int(record["size_bytes"])


def copy(source: Path, target: Path) -> None:
    """What ``store`` wrote to one folder, to another."""
    (target / _FILE).write_bytes((source / _FILE).read_bytes())
