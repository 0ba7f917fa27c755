"""autotune beside a naive search by the same stages: the same 4 adapters × 8 deploy points, on one machine.

    python benchmarks/versus_naive.py --model FOLDER [--steps 20] [--batch 8] [--eval-rows 64] [--sample-naive N]

What is compared is the order of the work, not its quality. Both sides train by the same code, write artifacts by the
same code and ask the same questions of the same probe, on the same Hugging Face folder, rows, steps and thread count;
so their accuracies must be equal trial by trial, down to each answer. This checks it, and exits 1 where they are not.

- autotune: ``autotune run`` with an empty store, no constraints, and stopping early switched off, so that every trial
  is asked all rows. What it does besides the trials (the untrained base's accuracy, its logits against PyTorch's, the
  artifact's tokenizer on all rows) is in its makespan.
- naive: for each trial, one after the other in one process, the adapter is trained, merged into the whole base as a
  Hugging Face folder (PEFT's merge_and_unload in fp32), exported by ModelBuilder, written at the deploy point, probed
  once (latency and answers in one process), and deleted (naive_side.py). In its favour: the frozen base stays loaded
  between trainings, imports are paid once, and the artifact is written by our code, which is quicker than
  ModelBuilder's own.

Makespan is the wall time of one process from its start to its end. With --sample-naive N only N of the naive trials
are run, spread over adapters and deploy points, and the naive makespan is extrapolated: what is done once, plus for
each deploy point the mean seconds of its trials times the number of adapters. The table says so.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from autotune import answers, workers
from benchmarks import grid
from benchmarks.grid import (
    ADAPTERS,
    LEARNING_RATE,
    TONE,
    Side,
    Trial,
    our_stages,
    run_timed,
    say,
    stage_sums,
    write_rows,
)
from benchmarks.record import record
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

HERE = Path(__file__).resolve().parent
POINTS: tuple[dict[str, Any], ...] = (
    {"precision": "fp32"}, {"precision": "fp16"}, {"precision": "int8"}, {"precision": "int4"},
    {"precision": "int4", "block_size": 128}, {"precision": "int4", "symmetric": False},
    {"precision": "int4", "algorithm": "k_quant"}, {"precision": "int4", "int8_where": "head"},
)
_FOLLOW_S = 0.5


@dataclasses.dataclass(frozen=True)
class Run:
    """One side: what it came to, and its answered labels by trial. ``seconds_of`` are the naive side's, by trial."""

    side: Side
    answers: dict[Trial, list[int]]
    seconds_of: dict[Trial, float] = dataclasses.field(default_factory=dict)


def study(args: argparse.Namespace) -> dict[str, Any]:
    """The study of the comparison with Olive with our deploy points, every trial asked all rows."""
    made = grid.study(args)
    made["name"] = "versus-naive"
    made["space"]["deploy"] = list(POINTS[: args.points])
    return made


def labels(args: argparse.Namespace) -> list[str]:
    return [DeployParams(**point).label for point in POINTS[: args.points]]


def naive_trials(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All trials, or the first ``sample_naive`` of an order whose beginnings are spread over adapters and points."""
    chosen = []
    for i in range(args.sample_naive or args.adapters * args.points):
        point = i % args.points
        rank, alpha = ADAPTERS[(i // args.points + point) % args.adapters]
        params = AdapterParams(rank, float(alpha), LEARNING_RATE, steps=args.steps, batch_size=args.batch)
        chosen.append({"adapter": dataclasses.asdict(params), "point": POINTS[point]})
    return chosen


def run_ours(args: argparse.Namespace, work: Path, began: float) -> Run:
    out, store = work / "ours", work / "store"
    command = [sys.executable, "-m", "autotune", "run", "study.yaml", "--out", str(out), "--store", str(store)]
    say(began, f"autotune: {args.adapters} adapters × {args.points} deploy points; log in {work / 'ours.log'}")
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    with following(out / "events.jsonl", began):
        makespan, code, peak = run_timed(command, work / "ours.log", env, work)
    accuracy: dict[Trial, float] = {}
    given: dict[Trial, list[int]] = {}
    file = out / "results.json"
    for trial in json.loads(file.read_text(encoding="utf-8"))["trials"] if file.exists() else ():
        if trial["state"] == "COMPLETE":
            key = trial["params"]["rank"], float(trial["params"]["alpha"]), trial["deploy_point"]
            accuracy[key] = trial["values"]["accuracy"]["value"]
            given[key] = list(answers.load(store / trial["stages"]["answers"]["key"])[0].predictions)
    sums = stage_sums(our_stages(read_events(out / "events.jsonl")))
    say(began, f"autotune ended with exit code {code} after {makespan:.1f} s: {len(accuracy)} trials")
    return Run(Side(makespan, code, peak, accuracy, *sums), given)


def run_naive(args: argparse.Namespace, work: Path, began: float) -> Run:
    folder = work / "naive"
    folder.mkdir()
    events, trials = folder / "events.jsonl", naive_trials(args)
    job = {"study": str(work / "study.yaml"), "folder": str(folder), "events": str(events), "trials": trials}
    (folder / "job.json").write_text(json.dumps(job, indent=1), encoding="utf-8")
    # How threads wait, as in our own worker.
    env = {**os.environ, **workers._ENVIRONMENT, "OMP_NUM_THREADS": str(args.threads)}
    say(began, f"naive: {len(trials)} of {args.adapters} × {args.points} trials; log in {folder / 'log'}")
    with following(events, began):
        command = [sys.executable, str(HERE / "naive_side.py"), str(folder / "job.json")]
        makespan, code, peak = run_timed(command, folder / "log", env, work)
    lines = read_events(events)
    done = {(e["rank"], float(e["alpha"]), e["point"]): e for e in lines if e["event"] == "trial"}
    side = Side(makespan, code, peak, {t: e["accuracy"] for t, e in done.items()}, *stage_sums(our_stages(lines)))
    say(began, f"naive ended with exit code {code} after {makespan:.1f} s: {len(done)} trials")
    return Run(side, {t: e["answers"] for t, e in done.items()}, {t: e["seconds"] for t, e in done.items()})


def read_events(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


@contextlib.contextmanager
def following(events: Path, began: float) -> Iterator[None]:
    """Says each stage that ends, while the block runs."""
    ended = threading.Event()

    def follow() -> None:
        said = 0
        while not ended.wait(_FOLLOW_S):
            found = read_events(events)
            for event in found[said:]:
                if event["event"] == "stage_end" and not event["cached"]:
                    say(began, f"  {event['stage']} {event['seconds']:.1f} s")
                elif event["event"] == "trial":
                    say(began, f"  trial r {event['rank']}, alpha {event['alpha']:g}, {event['point']}: "
                               f"{event['seconds']:.1f} s, accuracy {event['accuracy']:.3f}")
            said = len(found)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def naive_makespan(naive: Run, adapters: int, points: list[str]) -> float:
    """Of all trials: measured where all were run, else extrapolated from those that were."""
    taken = naive.seconds_of
    if len(taken) == adapters * len(points):
        return naive.side.makespan
    once = naive.side.makespan - sum(taken.values())
    by_point = [[s for (_, _, label), s in taken.items() if label == point] for point in points]
    return once + sum(sum(found) / len(found) * adapters for found in by_point)


def disagreements(ours: Run, naive: Run) -> list[Trial]:
    """Trials of both sides whose accuracy or any answer differs."""
    both = ours.side.accuracy.keys() & naive.side.accuracy.keys()
    return sorted(t for t in both if ours.side.accuracy[t] != naive.side.accuracy[t]
                  or ours.answers[t] != naive.answers[t])


def tables(args: argparse.Namespace, ours: Run | None, naive: Run | None) -> list[str]:
    """Trials, then seconds by stage, then makespans, as Markdown."""
    lines = ["| rank | alpha | deploy point | autotune accuracy | naive accuracy |", "|---|---|---|---|---|"]
    for rank, alpha in ADAPTERS[: args.adapters]:
        for label in labels(args):
            shown = [f"{run.side.accuracy[rank, alpha, label]:.4f}" if run and (rank, alpha, label) in run.side.accuracy
                     else "–" for run in (ours, naive)]
            lines.append(f"| {rank} | {alpha} | {label} | {shown[0]} | {shown[1]} |")
    lines += ["", "| | trials | exit code | wall s | largest process MB | seconds by stage (× times) |",
              "|---|---|---|---|---|---|"]
    for name, run in (("autotune", ours), ("naive", naive)):
        if run:
            side = run.side
            stages = ", ".join(f"{stage} {s:.1f} (×{side.counts[stage]})" for stage, s in side.seconds.items())
            lines.append(f"| {name} | {len(side.accuracy)} | {side.exit_code} | {side.makespan:.1f} | "
                         f"{side.peak_mb:.0f} | {stages} |")
    return lines + verdict(args, ours, naive)


def verdict(args: argparse.Namespace, ours: Run | None, naive: Run | None) -> list[str]:
    whole, lines = args.adapters * args.points, [""]
    whole_naive = None
    if naive and naive.side.exit_code == 0 and len(naive.seconds_of) == len(naive_trials(args)):
        whole_naive = naive_makespan(naive, args.adapters, labels(args))
    if naive and whole_naive and len(naive.seconds_of) < whole:
        once = naive.side.makespan - sum(naive.seconds_of.values())
        lines += [f"Only {len(naive.seconds_of)} of the {whole} naive trials were run: the naive makespan of all is "
                  f"EXTRAPOLATED, not measured, to {whole_naive:.1f} s ({once:.1f} s once, and for each deploy point "
                  f"the mean seconds of its trials times {args.adapters} adapters).", ""]
    if not (ours and naive):
        return lines[:-1]
    differing = disagreements(ours, naive)
    compared = len(ours.side.accuracy.keys() & naive.side.accuracy.keys())
    lines.append(f"Accuracy and every answer equal in {compared - len(differing)} of {compared} trials."
                 + (f" Different: {', '.join(map(str, differing))}." if differing else ""))
    if whole_naive and len(ours.side.accuracy) == whole:
        kind = "Extrapolated makespan" if len(naive.seconds_of) < whole else "Makespan"
        lines += ["", f"{kind} of naive ÷ makespan of autotune: {whole_naive / ours.side.makespan:.2f}."]
    else:
        lines += ["", "No ratio of makespans: not every trial that was asked for was made."]
    return lines


def failed(args: argparse.Namespace, ours: Run | None, naive: Run | None) -> bool:
    """Whether a side did not make what it was asked for, or the two disagree."""
    return ((ours is not None and len(ours.side.accuracy) < args.adapters * args.points)
            or (naive is not None and len(naive.seconds_of) < len(naive_trials(args)))
            or (ours is not None and naive is not None and bool(disagreements(ours, naive))))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face folder")
    parser.add_argument("--rows", type=Path, nargs="+", default=[TONE / "train.jsonl", TONE / "valid.jsonl"],
                        help="rows {phrase, tone}: the first ones are trained on, the last ones evaluated on")
    parser.add_argument("--train-rows", type=int, help="default: steps × batch, each row seen once")
    parser.add_argument("--eval-rows", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--adapters", type=int, choices=(1, 2, 4), default=4, help="the first so many")
    parser.add_argument("--points", type=int, choices=range(1, len(POINTS) + 1), default=len(POINTS))
    parser.add_argument("--sample-naive", type=int, metavar="N", help="run only N naive trials and extrapolate")
    parser.add_argument("--work", type=Path, help="an empty or new folder, kept; default: a temporary one")
    parser.add_argument("--skip-naive", action="store_true")
    parser.add_argument("--skip-ours", action="store_true")
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    args = parser.parse_args()
    if not (args.model / "config.json").is_file():
        parser.error(f"--model: {args.model} found; accepted is a Hugging Face folder with a config.json")
    whole = args.adapters * args.points
    if args.sample_naive is not None and not args.points <= args.sample_naive <= whole:
        parser.error(f"--sample-naive: {args.sample_naive} found; accepted are {args.points}, so that each deploy "
                     f"point has a trial, to {whole}, all of them")
    args.model = args.model.resolve()
    args.train_rows = args.train_rows or args.steps * args.batch
    return args


def compare(args: argparse.Namespace, work: Path) -> bool:
    """True when both sides made every trial and agree."""
    began = time.monotonic()
    write_rows(args.rows, work, args.train_rows, args.eval_rows)
    (work / "study.yaml").write_text(yaml.safe_dump(study(args), sort_keys=False), encoding="utf-8")
    ours = None if args.skip_ours else run_ours(args, work, began)
    naive = None if args.skip_naive else run_naive(args, work, began)
    lines = tables(args, ours, naive)
    print("\n".join(lines))
    if not args.no_record:
        command = (f"python benchmarks/versus_naive.py --model {args.model.name} --train-rows {args.train_rows} "
                   f"--steps {args.steps} --batch {args.batch} --eval-rows {args.eval_rows} --adapters "
                   f"{args.adapters} --points {args.points} --threads {args.threads}"
                   + (f" --sample-naive {args.sample_naive}" if args.sample_naive else ""))
        record("Beside a naive search", command, "One run each, one after the other.", lines)
    return not failed(args, ours, naive)


def main() -> None:
    args = options()
    if args.work is None:
        with tempfile.TemporaryDirectory(prefix="versus-naive-") as scratch:
            good = compare(args, Path(scratch))
    else:
        if args.work.exists() and any(args.work.iterdir()):
            sys.exit(f"--work {args.work} is not empty: both sides must begin with nothing made")
        args.work.mkdir(parents=True, exist_ok=True)
        good = compare(args, args.work.resolve())
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
