"""An artifact's latency as a multiple of its reference's, from blocks timed by turns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy import stats as scipy_stats

from autotune.paired import ratio_interval
from autotune.stats import Measurement, halved, summarize
from objectives.base import parse_key
from objectives.latency import values
from objectives.steadiness import samples_of, used_blocks
from objectives.timing import Block, Timing


def ratio(timing: Timing, key: str, confidence: float = 0.95) -> Measurement:
    """The artifact's ``key`` (``latency_ms.p50``) as a multiple of the reference's.

    A median or mean is compared round by round, which takes out what both share: the geometric mean of the rounds'
    ratios, with Student's interval of their logarithms; ``n`` counts rounds. (A round's ratio is of medians already,
    so close to normal, and there are too few rounds for a rank test to reach 95 %.) A tail takes all samples: the
    quotient of both percentiles, between the quotients of the ends of their distribution-free intervals, each at half
    the error (Bonferroni); ``n`` counts the artifact's samples. An end is None where there is too little to tell.

    Raises ValueError without a reference, for a key that is no latency, or where no request has a value.
    """
    objective, statistic = parse_key(key)
    if objective.source != "latency" or statistic is None:
        raise ValueError(f"{key} is not made of timings; accepted: ttft_ms, tpot_ms, latency_ms, tokens_per_s")
    if not timing.has_reference:
        raise ValueError(f"no ratio of {key}: the artifact was timed without a reference")
    blocks = used_blocks(timing)
    if statistic in ("p50", "mean"):
        return _by_rounds(blocks, objective.name, statistic, confidence)
    ours, theirs = (summarize(values(objective.name, samples_of(blocks, of)), statistic, halved(confidence))
                    for of in ("artifact", "reference"))
    low, high = ratio_interval(ours, theirs)
    return Measurement(ours.value / theirs.value, low, high, ours.n, "")


def _by_rounds(blocks: Sequence[Block], name: str, statistic: str, confidence: float) -> Measurement:
    level = statistics.median if statistic == "p50" else statistics.mean
    logs = []
    for number in dict.fromkeys(block.round for block in blocks):
        mine = [block for block in blocks if block.round == number]
        ours, theirs = (values(name, samples_of(mine, of)) for of in ("artifact", "reference"))
        if ours and theirs:
            logs.append(math.log(level(ours) / level(theirs)))
    if not logs:
        raise ValueError(f"no ratio of {name}: no round has a value of both")
    mean = statistics.mean(logs)
    if len(logs) < 2:
        return Measurement(math.exp(mean), None, None, len(logs), "")
    t = float(scipy_stats.t.ppf(0.5 + confidence / 2, len(logs) - 1))
    reach = t * statistics.stdev(logs) / math.sqrt(len(logs))
    return Measurement(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach), len(logs), "")
