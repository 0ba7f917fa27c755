"""The statistics behind verdicts and certificates, held against simulated studies whose truth is known.

    python benchmarks/calibration.py [--studies 10000] [--seed 0] [--no-record]

Answers and latencies are drawn from known rates and distributions, and the engine's own functions judge them. It
prints, for accuracy, p50, p95 and paired differences, how often intervals of 95 % cover the truth and how wide they
are; how often a certificate PASSes one of 50 candidates that are just under the limit, beside the naive choice of the
best on validation; how often the rows that an INCONCLUSIVE limit asks for settle it; and how often equal trials are
told apart.

What is promised stands above each table, and is held less the Monte Carlo error: three standard errors of the share in
so many studies. Exits 1 when a promise does not hold.
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks import calibrate_certificates, calibrate_intervals
from benchmarks.record import record
from benchmarks.simulated import Section

SECTIONS = (calibrate_intervals.accuracy, calibrate_intervals.percentiles, calibrate_intervals.differences,
            calibrate_certificates.certificate, calibrate_certificates.settling, calibrate_certificates.tied)


def simulate(studies: int, seed: int) -> list[Section]:
    found = []
    for i, section in enumerate(SECTIONS):
        began = time.monotonic()
        # Each section draws by itself: a change in one leaves the others' figures alone.
        found.append(section(studies, 1000 * seed + i))
        print(f"{found[-1].title}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return found


def report(sections: list[Section]) -> list[str]:
    lines = [line for s in sections for line in (f"### {s.title}", "", *s.lines)]
    broken = [f"- {said}" for s in sections for said in s.broken]
    return [*lines, *(["Promises that did NOT hold:", "", *broken] if broken else ["Every promise holds."])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10_000, help="simulated studies for each line of a table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    args = parser.parse_args()
    if args.studies < 1000:
        parser.error(f"--studies: {args.studies} found; accepted is at least 1000, fewer tell little")
    sections = simulate(args.studies, args.seed)
    lines = report(sections)
    print("\n".join(lines))
    if not args.no_record:
        command = f"python benchmarks/calibration.py --studies {args.studies} --seed {args.seed}"
        record("Calibration", command, f"{args.studies} simulated studies for each line, ± is the Monte Carlo error "
               "(95 %).", lines)
    sys.exit(1 if any(s.broken for s in sections) else 0)


if __name__ == "__main__":
    main()
