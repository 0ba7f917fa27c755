"""From what the probe returned to the objective's value with its interval."""

from __future__ import annotations

from autotune.errors import ProbeError
from autotune.stats import Measurement, single, summarize
from objectives.base import parse_key
from objectives.latency import values
from objectives.result import ProbeResult


def from_probe(key: str, result: ProbeResult, confidence: float) -> Measurement:
    """An objective of source latency, memory or load (``latency_ms.p95``, ``peak_rss_mb``, ``load_ms``).

    Raises ProbeError when the result holds nothing to make it of, and ValueError for other objectives.
    """
    objective, statistic = parse_key(key)
    if objective.source == "memory":
        return single(result.peak_rss_mb, objective.unit)
    if objective.source == "load":
        return single(result.load_ms, objective.unit)
    if objective.source != "latency" or statistic is None:
        raise ValueError(f"{key} is not made of a probe's timings; accepted: sources latency, memory, load")
    samples = values(objective.name, result.samples)
    if not samples:
        raise ProbeError(f"{key} has no value: none of {len(result.samples)} timed requests was long enough")
    return summarize(samples, statistic, confidence, objective.unit)
