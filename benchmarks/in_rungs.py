"""The same study in rungs and with every adapter trained to its end: how long each takes, how good each front is.

    python benchmarks/in_rungs.py examples/tone/study.yaml --work FOLDER [--adapters 8] [--seeds 0 1 2]
        [--reference accuracy=0.6 latency_ms.p50=600 size_mb=600] [--no-record]

For each seed, which is the search's and the trainings', the study runs twice, one after the other: with its own rungs
and with ``rungs: [1]``; no certificate. Each run begins with what a first run of one adapter has left in the store of
base model, templates, deploy points and their timings, so latencies are the same for all, and trains all its
adapters itself. Seconds are those from the first training to the last answer.

A front's hypervolume is taken twice: by the validation rows that its trials were chosen on, and by the test rows, which
its artifacts are asked here. A search that scores more artifacts on the same validation rows picks a luckier one, so
the second is what compares searches. Runs that FOLDER holds already are not made again. Figures are printed and
appended to RESULTS.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autotune.config import StudyConfig, load_config
from autotune.pareto import hypervolume
from autotune.pipeline.tokens import TokenizedData
from autotune.questions import Target, probe_request
from benchmarks.record import record
from objectives.base import parse_key

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("rungs", "whole")
#: What the runs share: nothing of an adapter.
WARM = ("base", "template", "data", "point", "probe", "verify")
Values = Mapping[str, float]
Array = NDArray[Any]


@dataclass(frozen=True)
class Run:
    """``whole``: how many of the adapters were trained to their end. ``front``: each one's values by the validation
    rows; ``right`` [front, test rows]: which of these its artifact answers rightly."""

    seconds: float
    adapters: int
    whole: int
    judging_s: float
    front: tuple[Values, ...]
    right: Array

    def test(self, rows: Array, reference: Values) -> float:
        """The front's hypervolume by these test rows, of which one may be there several times."""
        shares = self.right[:, rows].mean(axis=1)
        return volume([{**v, "accuracy": float(a)} for v, a in zip(self.front, shares, strict=True)], reference)


def volume(front: Sequence[Values], reference: Values) -> float:
    """The hypervolume of these values beyond the reference, whichever way each objective goes."""
    signs = {key: -1 if parse_key(key)[0].direction == "maximize" else 1 for key in reference}
    points = [[signs[key] * values[key] for key in reference] for values in front]
    return hypervolume(points, [signs[key] * bound for key, bound in reference.items()])


def spent(events: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """(seconds from the first training to the last answer, those of judging among them)."""
    begun = min(e["time"] for e in events if e["event"] == "stage_start" and e["stage"] in ("rung", "train"))
    ends = [e for e in events if e["event"] == "stage_end" and e["time"] > begun]
    last = max(e["time"] for e in ends if e["stage"] == "answers")
    return last - begun, sum(e["seconds"] for e in ends if e["stage"] == "judge")


def front_of(document: Mapping[str, Any], keys: Sequence[str]) -> dict[int, dict[str, float]]:
    trials = {t["number"]: t["values"] for t in document["trials"]}
    return {n: {key: trials[n][key]["value"] for key in keys} for n in document["front"]}


def read(folder: Path, config: StudyConfig, reference: Values) -> Run:
    """What a run came to; its front's artifacts are asked the test rows, once."""
    out = folder / "run"
    document = json.loads((out / "results.json").read_text(encoding="utf-8"))
    events = [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    front = front_of(document, list(reference))
    right = asked(folder, [f"trial-{n}" for n in front], config)
    seconds, judging = spent(events)
    whole = sum(a["state"] == "complete" for a in document["adapters"])
    return Run(seconds, len(document["adapters"]), whole, judging, tuple(front.values()), np.array(right, float))


def asked(folder: Path, names: Sequence[str], config: StudyConfig) -> list[list[bool]]:
    """Which test rows each artifact answers rightly; kept in the folder."""
    kept = folder / "test.json"
    told: dict[str, list[bool]] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    data = TokenizedData.load(next((folder / "store" / "data").glob("*/data.json")))
    for name in names:
        if name not in told:
            told[name] = _right(folder / "run" / "artifacts" / name, data, config, folder)
            kept.write_text(json.dumps(told), encoding="utf-8")
    return [told[name] for name in names]


def _right(artifact: Path, data: TokenizedData, config: StudyConfig, scratch: Path) -> list[bool]:
    task = {"kind": "choice", "texts": [row.prompt_text for row in data.test], "chat": data.chat,
            "labels": [list(ids) for ids in data.label_ids], "eos_id": data.eos_id}
    request, given = scratch / "request.json", config.file.target
    target = Target(given.provider, given.provider_options, given.threads)
    request.write_text(json.dumps(probe_request(artifact.resolve(), target, 0, [task])), encoding="utf-8")
    command = [sys.executable, "-m", "objectives.probe", str(request.resolve())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    labels = {e["row"]: e["label"] for line in done.stdout.splitlines()
              if (e := json.loads(line))["event"] == "prediction"}
    return [data.labels[labels[i]] == row.answer_text for i, row in enumerate(data.test)]


def make(study: Path, folder: Path, warm: Path | None, changes: Mapping[str, Any]) -> None:
    """Run the study, changed, in a folder of its own, unless it is there already."""
    if (folder / "run" / "results.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(study.parent, folder, ignore=shutil.ignore_patterns("runs"))
    for kind in WARM:
        if warm and (warm / kind).is_dir():
            shutil.copytree(warm / kind, folder / "store" / kind, copy_function=os.link)
    text = yaml.safe_load(study.read_text(encoding="utf-8"))
    training = {**text.get("training", {}), **changes.get("training", {})}
    changed = {**text, **changes, **({"training": training} if training else {})}
    (folder / study.name).write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
    with (folder / "log").open("w", encoding="utf-8") as log:
        done = subprocess.run(
            [sys.executable, "-m", "autotune", "run", str(folder / study.name), "--out", str(folder / "run"),
             "--store", str(folder / "store")], stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT)})
    if not (folder / "run" / "results.json").exists():
        sys.exit(f"the run in {folder} ended with {done.returncode}; see {folder / 'log'}")


def quotient(pairs: Sequence[tuple[Run, Run]], rows: Array, reference: Values) -> float:
    """The first fronts' hypervolumes by these test rows to the second ones', in sum."""
    return sum(a.test(rows, reference) for a, _ in pairs) / sum(b.test(rows, reference) for _, b in pairs)


def interval(pairs: Sequence[tuple[Run, Run]], reference: Values, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of the quotient over other draws of test rows, the same for all (percentile bootstrap; Efron &
    Tibshirani 1993, ch. 13)."""
    rows, rng = pairs[0][0].right.shape[1], np.random.default_rng(0)
    found = [quotient(pairs, rng.integers(0, rows, rows), reference) for _ in range(draws)]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def table(runs: Mapping[tuple[int, str], Run], reference: Values) -> list[str]:
    lines = ["| seed | to their end s | in rungs s | quotient | of these trained to the end | judging s | hypervolume "
             "÷, validation rows | test rows | best of the front, test rows |", "|---|---|---|---|---|---|---|---|---|"]
    seeds = sorted({seed for seed, _ in runs})
    pairs = [(runs[seed, "rungs"], runs[seed, "whole"]) for seed in seeds]
    every = np.arange(pairs[0][0].right.shape[1])
    valid = [[volume(run.front, reference) for run in pair] for pair in pairs]
    for seed, (rungs, whole), by_valid in zip(seeds, pairs, valid, strict=True):
        by_test = quotient([(rungs, whole)], every, reference)
        best, other = (run.right.mean(axis=1).max() for run in (rungs, whole))
        lines.append(f"| {seed} | {whole.seconds:.0f} | {rungs.seconds:.0f} | {rungs.seconds / whole.seconds:.2f} | "
                     f"{rungs.whole} of {rungs.adapters} | {rungs.judging_s:.0f} | {by_valid[0] / by_valid[1]:.2f} | "
                     f"{by_test:.2f} | {best:.3f}, to their end {other:.3f} |")
    time = sum(r.seconds for r, _ in pairs) / sum(w.seconds for _, w in pairs)
    low, high = interval(pairs, reference)
    chosen_on = sum(a for a, _ in valid) / sum(b for _, b in valid)
    return [*lines, "", f"In all {time:.2f} of the time. Hypervolume of the fronts in rungs to that of the others, in "
            f"sum: {chosen_on:.2f} by the validation rows, {quotient(pairs, every, reference):.2f} [{low:.2f}, "
            f"{high:.2f}] by the {len(every)} test rows (95 % interval over draws of rows)."]


def main() -> None:
    args = options()
    reference = {key: float(bound) for key, _, bound in (pair.partition("=") for pair in args.reference)}
    config, study, runs = load_config(args.study), args.study.resolve(), {}
    quiet = {"certificate": {"finalists": 0}}
    make(study, args.work / "warm", None, {**quiet, "budget": {"adapters": 1}, "rungs": [1]})
    for seed in args.seeds:
        for way in WAYS:
            folder = args.work / f"{way}-{seed}"
            changes = {**quiet, "budget": {"adapters": args.adapters}, "seed": seed,
                       "training": {"seed": seed}}
            make(study, folder, args.work / "warm" / "store", changes | ({"rungs": [1]} if way == "whole" else {}))
            runs[seed, way] = read(folder, config, reference)
            print(f"{way}, seed {seed}: {runs[seed, way].seconds:.0f} s", flush=True)
    lines = table(runs, reference)
    print("\n".join(lines))
    if not args.no_record:
        seeds = " ".join(map(str, args.seeds))
        record("In rungs and without", f"python benchmarks/in_rungs.py {args.study} --work FOLDER --adapters "
               f"{args.adapters} --seeds {seeds} --reference {' '.join(args.reference)}",
               "One run of each, one after the other.", lines)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="a folder for the runs and their stores, some 10 GB")
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--reference", nargs="+", default=["accuracy=0.6", "latency_ms.p50=600", "size_mb=600"],
                        metavar="KEY=BOUND", help="the corner that hypervolumes are measured from")
    parser.add_argument("--no-record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
