"""How far the timing of a certificate repeats itself: the ratio of two deploy points, measured again and again.

    python benchmarks/repeatability.py --model MODEL_FOLDER [--runs 10]
    python benchmarks/repeatability.py --artifacts LARGER SMALLER

Each run times both artifacts as a certificate does, one after the other, each in a fresh process by turns with the
smaller one and with requests enough for a p95. The ratio of the two deploy points is the quotient of their ratios to
that; beside it stands the quotient of their own medians. With --model the artifacts are its deploy points int8 and
int4. What is checked: in nine of ten runs the ratio is within 5 % of the median
of all. Figures are printed and appended to RESULTS.md beside this file. Exit code 1 where the check fails.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autotune.certifying.evidence import requests_needed
from autotune.ratio import ratio
from benchmarks.noise import KEY, POINTS, Artifact, Bench, add_options, opened
from benchmarks.record import record
from objectives.steadiness import steadiness, used_samples
from objectives.timing import Timing

NEAR = 0.05
CLAIMED_SHARE = 0.9


@dataclass(frozen=True)
class Run:
    """``by_turns`` is the ratio through the reference, ``apart`` that of the artifacts' own medians."""

    by_turns: float
    apart: float
    state: str


def measure(bench: Bench, pair: Sequence[Artifact]) -> Run:
    timings = [bench.timing(artifact, pair[1]) for artifact in pair]
    ratios = [ratio(timing, KEY).value for timing in timings]
    medians = [_median(timing) for timing in timings]
    states = [steadiness(timing).state for timing in timings]
    return Run(ratios[0] / ratios[1], medians[0] / medians[1], " and ".join(dict.fromkeys(states)))


def _median(timing: Timing) -> float:
    return statistics.median(sample.latency_ms for sample in used_samples(timing))


def near(values: Sequence[float]) -> int:
    """How many are within reach of the median of all."""
    middle = statistics.median(values)
    return sum(abs(value / middle - 1) <= NEAR for value in values)


def holds(runs: Sequence[Run]) -> bool:
    return near([run.by_turns for run in runs]) >= CLAIMED_SHARE * len(runs)


def tables(runs: Sequence[Run]) -> list[str]:
    lines = ["| run | ratio by turns with the reference | ratio of medians | state |", "|---|---|---|---|"]
    lines += [f"| {i} | {run.by_turns:.4f} | {run.apart:.4f} | {run.state} |" for i, run in enumerate(runs, start=1)]
    by_turns, apart = [run.by_turns for run in runs], [run.apart for run in runs]
    verdict = "holds" if holds(runs) else "does NOT hold"
    return [*lines, "", f"Within {NEAR:.0%} of the median of all: {near(by_turns)} of {len(runs)} by turns (from "
            f"{min(by_turns) / statistics.median(by_turns) - 1:+.1%} to "
            f"{max(by_turns) / statistics.median(by_turns) - 1:+.1%}), {near(apart)} of {len(runs)} by medians. That "
            f"{CLAIMED_SHARE:.0%} of the runs are, {verdict} here."]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, artifacts=2, samples=requests_needed(["latency_ms.p95"], 0.95), max_seconds=300.0)
    return parser.parse_args()


def main() -> None:
    args = options()
    with tempfile.TemporaryDirectory(prefix="repeatability-") as scratch:
        work = Path(scratch)
        pair, named = opened(args, work, POINTS)
        bench, runs = Bench(pair, args, work), []
        for i in range(args.runs):
            runs.append(measure(bench, pair))
            print(f"run {i + 1} of {args.runs}: {runs[-1]}", flush=True)
    lines = tables(runs)
    print("\n".join(lines))
    if not args.no_record:
        command = f"python benchmarks/repeatability.py {named} --runs {args.runs} --samples {args.samples}"
        record("Timing a certificate again", command, f"{KEY} of {pair[0].label} to that of {pair[1].label}, "
               f"prompts of {args.prompt_tokens} tokens, {args.new_tokens} new ones, {args.threads} threads; reference "
               f"{pair[1].label}.", lines)
    sys.exit(0 if holds(runs) else 1)


if __name__ == "__main__":
    main()
