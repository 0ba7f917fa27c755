"""How far the ratio of two artifacts' latencies is off when the machine is not quiet.

    python benchmarks/noise.py --model MODEL_FOLDER [--runs 10] [--samples 20]
    python benchmarks/noise.py --artifacts FOLDER FOLDER

1. Some quiet runs, before and after all others, give the ratio that the others are held against.
2. Runs while another process loads one core for 5 s in every 15. Each is made in two ways: interleaved, as the engine
   does it (blocks by turns, disturbed rounds timed again within the budget), and one after the other (one artifact
   alone, then the other alone, each in a process of its own, the same number of requests, whatever befalls them).
3. One run while another process takes more and more of a core.

What is checked: at least nine of ten interleaved runs under load are within 10 % of the quiet ratio or say that they
are not steady, and the run under a growing load says so. With --model the artifacts are its deploy points int8 and
int4. Figures are printed and appended to RESULTS.md beside this file. Exit code 1 where the check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autotune.machine_lock import MachineLock
from autotune.pipeline import stages
from autotune.pipeline.template_params import template_params
from autotune.questions import Target, probe_request
from autotune.ratio import ratio
from autotune.stats import Measurement
from autotune.targets.local import run_probe
from autotune.workers import Worker
from benchmarks.record import record
from objectives.session import min_generator_length
from objectives.steadiness import Steadiness, steadiness
from objectives.timing import Timing
from search_spaces.deploy import DeployParams

POINTS = (DeployParams("int8"), DeployParams("int4"))
NEAR = 0.10
CLAIMED_SHARE = 0.9
KEY = "latency_ms.p50"
_PROMPTS = 4
_BURSTS = "import time\nwhile True:\n end = time.monotonic() + 5\n while time.monotonic() < end: pass\n time.sleep(10)"
_GROWING = """
import sys, time
span, began = float(sys.argv[1]), time.monotonic()
while True:
    share = min(1.0, (time.monotonic() - began) / span)
    end = time.monotonic() + 0.1 * share
    while time.monotonic() < end: pass
    time.sleep(0.1 * (1 - share))
"""


@dataclass(frozen=True)
class Artifact:
    label: str
    folder: Path
    min_generator_length: int


@dataclass(frozen=True)
class Run:
    """The interleaved ratio and what was said of it; the one-after-the-other ratio where that was made too."""

    interleaved: Measurement
    said: Steadiness
    apart: float | None = None


class Bench:
    def __init__(self, pair: Sequence[Artifact], args: argparse.Namespace, work: Path) -> None:
        self._pair, self._args, self._work, self._machine = pair, args, work, MachineLock()
        config = json.loads((pair[0].folder / "genai_config.json").read_text(encoding="utf-8"))
        draw = random.Random(0)
        self._prompts = [[draw.randrange(10, config["model"]["vocab_size"]) for _ in range(args.prompt_tokens)]
                         for _ in range(_PROMPTS)]

    def interleaved(self) -> Run:
        timing = self.timing(self._pair[0], self._pair[1])
        return Run(ratio(timing, KEY), steadiness(timing))

    def apart(self) -> float:
        medians = [statistics.median(first(self.timing(a), self._args.samples)) for a in self._pair]
        return medians[0] / medians[1]

    def timing(self, artifact: Artifact, beside: Artifact | None = None) -> Timing:
        task: dict[str, Any] = {
            "kind": "latency", "prompts": self._prompts, "new_tokens": self._args.new_tokens, "ignore_eos": True,
            "samples": self._args.samples, "max_seconds": self._args.max_seconds,
        }
        if beside:
            task["reference"] = {"artifact": str(beside.folder), "min_generator_length": beside.min_generator_length}
        target = Target("cpu", {}, self._args.threads)
        with self._machine.measuring():
            result = run_probe(probe_request(artifact.folder, target, artifact.min_generator_length, [task]),
                               workdir=self._work)
        assert result.timing
        return result.timing


def first(timing: Timing, count: int) -> list[float]:
    """Milliseconds of the first requests, disturbed or not: what timing in a plain loop gives."""
    return [s.latency_ms for block in timing.blocks for s in block.samples][:count]


@contextlib.contextmanager
def beside(code: str, *arguments: str) -> Iterator[None]:
    """Another process that runs ``code`` meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def build(model: Path, work: Path, context: int, points: Sequence[DeployParams]) -> list[Artifact]:
    worker, made = Worker(work / "build.log"), []
    try:
        worker.run(stages.make_template, model, work / "template", template_params(points[0], "cpu", context))
        for point in points:
            out = work / point.label
            out.mkdir()
            worker.run(stages.make_point, work / "template", model, out, point, "cpu", context)
            made.append(given(out / stages.ARTIFACT_FOLDER, point.label))
    finally:
        worker.close()
    return made


def given(folder: Path, label: str) -> Artifact:
    """An artifact where it lies."""
    return Artifact(label, folder, min_generator_length(folder))


def quiet_ratio(quiet: Sequence[Run]) -> float:
    """The geometric mean of the quiet runs' ratios."""
    return math.exp(statistics.mean(math.log(run.interleaved.value) for run in quiet))


def off(value: float, level: float) -> float:
    return value / level - 1


def trusted(run: Run, level: float) -> bool:
    """Within reach of the quiet ratio, or a run that does not claim to be."""
    return abs(off(run.interleaved.value, level)) <= NEAR or run.said.state != "steady"


def holds(quiet: Sequence[Run], loaded: Sequence[Run], growing: Run) -> bool:
    level = quiet_ratio(quiet)
    return (sum(trusted(run, level) for run in loaded) >= CLAIMED_SHARE * len(loaded)
            and growing.said.state != "steady")


def tables(quiet: Sequence[Run], loaded: Sequence[Run], growing: Run) -> list[str]:
    level = quiet_ratio(quiet)
    lines = ["| run | interleaved ratio | off the quiet ratio | what it says of itself | one after the other | off |",
             "|---|---|---|---|---|---|"]
    for name, runs in (("quiet", quiet), ("5 s of load in 15", loaded), ("growing load", [growing])):
        lines += [f"| {name} {i + 1} | {shown(run.interleaved)} | {off(run.interleaved.value, level):+.1%} | "
                  f"{run.said.state}: {run.said.sentence()} | {apart(run.apart, level)} |"
                  for i, run in enumerate(runs)]
    near = sum(abs(off(run.interleaved.value, level)) <= NEAR for run in loaded)
    unsteady = sum(run.said.state != "steady" for run in loaded)
    loose = [run.apart for run in loaded if run.apart is not None]
    near_apart = sum(abs(off(value, level)) <= NEAR for value in loose)
    verdict = "holds" if holds(quiet, loaded, growing) else "does NOT hold"
    return [*lines, "", f"Quiet ratio {level:.4f}. Within {NEAR:.0%} of it under load: {near} of {len(loaded)} "
            f"interleaved runs ({unsteady} called themselves unsteady), {near_apart} of {len(loose)} one after the "
            f"other. That {CLAIMED_SHARE:.0%} of the interleaved ones are near or say that they are not steady, and "
            f"that a growing load is noticed, {verdict} here."]


def shown(m: Measurement) -> str:
    ends = (f"{end:.3f}" if end is not None else "…" for end in (m.low, m.high))
    return f"{m.value:.3f} [{', '.join(ends)}] (n = {m.n})"


def apart(value: float | None, level: float) -> str:
    return "– | –" if value is None else f"{value:.3f} | {off(value, level):+.1%}"


def compare(bench: Bench, args: argparse.Namespace) -> tuple[list[Run], list[Run], Run]:
    def said(name: str, run: Run) -> Run:
        print(f"{name}: {shown(run.interleaved)}, {run.said.state}: {run.said.sentence()}"
              + (f"; one after the other {run.apart:.3f}" if run.apart else ""), flush=True)
        return run

    quiet = [said("quiet", bench.interleaved()) for _ in range(args.quiet)]
    loaded = []
    with beside(_BURSTS):
        for _ in range(args.runs):
            run = bench.interleaved()
            loaded.append(said("under load", Run(run.interleaved, run.said, bench.apart())))
    with beside(_GROWING, str(args.max_seconds / 2)):
        growing = said("growing load", bench.interleaved())
    quiet += [said("quiet", bench.interleaved()) for _ in range(args.quiet)]
    return quiet, loaded, growing


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, artifacts=2, samples=20, max_seconds=120.0)
    parser.add_argument("--quiet", type=int, default=3, help="quiet runs before, and as many after")
    return parser.parse_args()


def add_options(parser: argparse.ArgumentParser, *, artifacts: int, samples: int, max_seconds: float) -> None:
    """What every benchmark of timing takes: the artifacts, the workload, and how often it is measured."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", type=Path, help="a Hugging Face folder")
    which.add_argument("--artifacts", type=Path, nargs=artifacts, help="folders of ONNX Runtime GenAI")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--samples", type=int, default=samples)
    parser.add_argument("--max-seconds", type=float, default=max_seconds, help="budget of one measurement")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")


def opened(args: argparse.Namespace, work: Path, points: Sequence[DeployParams]) -> tuple[list[Artifact], str]:
    """The artifacts that were asked for, and the option that did."""
    if args.model:
        return build(args.model.resolve(), work, args.context, points), f"--model {args.model.name}"
    found = [given(folder.resolve(), folder.name) for folder in args.artifacts]
    return found, f"--artifacts {' '.join(folder.name for folder in args.artifacts)}"


def main() -> None:
    args = options()
    with tempfile.TemporaryDirectory(prefix="noise-") as scratch:
        work = Path(scratch)
        pair, named = opened(args, work, POINTS)
        quiet, loaded, growing = compare(Bench(pair, args, work), args)
    lines = tables(quiet, loaded, growing)
    print("\n".join(lines))
    if not args.no_record:
        command = (f"python benchmarks/noise.py {named} --runs {args.runs} --samples {args.samples} --threads "
                   f"{args.threads}")
        record("Latency on a machine that is not quiet", command, f"Ratio of {KEY} of {pair[0].label} to "
               f"{pair[1].label}, prompts of {args.prompt_tokens} tokens, {args.new_tokens} new ones.", lines)
    sys.exit(0 if holds(quiet, loaded, growing) else 1)


if __name__ == "__main__":
    main()
