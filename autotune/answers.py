"""What an artifact answered: stored as the probe gave it, and made into Measurements by key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from autotune import stats
from autotune.measure import from_probe
from autotune.pipeline.tokens import TokenizedData
from autotune.stats import Measurement
from autotune.targets.result import ProbeResult
from objectives.accuracy import Generation
from objectives.base import MB, OBJECTIVES
from objectives.latency import VALUES, LatencySample

#: Every run measures these, asked for or not.
_TIMED = ("ttft_ms", "tpot_ms", "latency_ms", "tokens_per_s")
_STANDING = tuple(f"{name}.{statistic}" for name in _TIMED for statistic in ("p50", "p95"))
_FILE = "measurement.json"


def texts(result: ProbeResult, data: TokenizedData) -> list[str]:
    """The artifact's answers as text, one a validation row."""
    if data.task == "choice":
        return [data.labels[i] for i in result.predictions]
    return [g.text for g in result.generations]


def metric_names(data: TokenizedData, asked: Sequence[str]) -> list[str]:
    """The metrics of the answers: the task's own, and the study's functions and evaluate metrics."""
    standing = ["accuracy", "macro_f1"] if data.task == "choice" else ["exact_match"]
    return standing + [key for key in asked if ":" in key]


def system_measurements(
    result: ProbeResult, size_bytes: int, asked: Sequence[str], confidence: float
) -> dict[str, Measurement]:
    """Latency, memory, load and size by key. A standing one that no request gave is left out."""
    timed = [key for key in asked if key.partition(".")[0] in VALUES]
    found = {}
    for key in dict.fromkeys([*_STANDING, *timed] if result.samples else ()):
        name = key.partition(".")[0]
        if key in timed or any(VALUES[name](s) is not None for s in result.samples):
            found[key] = from_probe(key, result, confidence)
    for key in ("peak_rss_mb", "load_ms"):
        found[key] = from_probe(key, result, confidence)
    found["size_mb"] = stats.exact(size_bytes / MB, 1, OBJECTIVES["size_mb"].unit)
    return found


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
        samples=tuple(LatencySample(**{**s, "token_ms": tuple(s["token_ms"])}) for s in raw["samples"]),
        predictions=tuple(raw["predictions"]),
        generations=tuple(Generation(tuple(g["ids"]), g["text"]) for g in raw["generations"]),
        facts=raw["facts"],
    )
    return result, int(record["size_bytes"])
