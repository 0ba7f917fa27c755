r"""Records a table of real measurements, for replays of searches: many adapters, at many rungs and deploy points.

    python benchmarks/replay/record_table.py plan --base HF_FOLDER --train T.jsonl --valid V.jsonl --test E.jsonl \
        --work W
    python benchmarks/replay/record_table.py train --base HF_FOLDER --work W --records R.json.gz
    python benchmarks/replay/record_table.py measure --base HF_FOLDER --work W --costs FOLDER
    python benchmarks/replay/record_table.py join --base HF_FOLDER --work W --records R.json.gz … --costs FOLDER \
        --out TABLE.json.gz

``train`` wants a GPU and many cores: adapters train packed there, and are paused, judged and kept at each rung; after
the last one the artifacts of every deploy point are assembled and asked the validation and test rows, by ONNX Runtime
on the CPU. It goes on where it was cut off, and ``--adapters`` takes a part of them, so that it may be done in pieces
on several machines. ``measure`` belongs on the machine whose costs the table shall have (seconds of a step, of an
artifact, of its answers; latency and size of the points): see `benchmarks.replay.costs`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.replay.drawing import POINTS, RUNGS, Plan, draw  # noqa: E402
from benchmarks.replay.workshop import Workshop, read_json  # noqa: E402

PROMPT, ANSWER = "### Text: {phrase}\n### The tone is:\n", "{tone}"
COSTS = (
    "Measured on the costs' machine: template, points, probes (latency and size), assembling, judging 64 rows, asking "
    "94 rows, from which asking all of them follows. Training follows from steps that were measured (provenance.step). "
    "Pieces that others disturbed count by processor seconds over threads instead of the clock."
)


def plan(args: argparse.Namespace) -> None:
    """Token ids of all rows and what is to be recorded, in the work folder."""
    from autotune.pipeline.tokenize import load_data

    args.work.mkdir(parents=True, exist_ok=True)
    train = args.work / "train.jsonl"
    train.write_text("".join(first_of_each(args.train.read_text(encoding="utf-8").splitlines(True), args.train_rows)),
                     encoding="utf-8")
    data, warnings = load_data(
        args.base, train=str(train.resolve()), valid=str(args.valid.resolve()), test=str(args.test.resolve()),
        base_dir=args.work, prompt=PROMPT, answer=ANSWER, chat=False, task="choice", labels=None,
        max_tokens=args.context,
    )
    for warning in warnings:
        print(warning)
    data.save(args.work / "data.json")
    Plan(tuple(draw(args.count, args.seed)), POINTS, RUNGS, args.seed, args.context).save(args.work / "plan.json")


def first_of_each(lines: Sequence[str], count: int) -> list[str]:
    """``count`` rows in file order: the first of each class, in the classes' own proportions."""
    tones = [json.loads(line)["tone"] for line in lines]
    total = len(lines)
    exact = {tone: tones.count(tone) * min(count, total) / total for tone in sorted(set(tones))}
    wanted = {tone: int(share) for tone, share in exact.items()}
    short = min(count, total) - sum(wanted.values())
    for tone in sorted(exact, key=lambda t: wanted[t] - exact[t])[:short]:
        wanted[tone] += 1
    chosen = []
    for line, tone in zip(lines, tones, strict=True):
        if wanted[tone] > 0:
            wanted[tone] -= 1
            chosen.append(line)
    return chosen


def train(args: argparse.Namespace) -> None:
    """Everything that needs the GPU or many cores, for as long as there is time; then the records so far."""
    from benchmarks.replay.recorder import TRAINED, say, train_all

    shop = Workshop(args.work, args.base)
    until = time.time() + args.seconds
    shop.forget_claims()
    (args.work / TRAINED).unlink(missing_ok=True)
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    pinned = len(cores) >= args.threads * (args.workers + 1)
    groups = [cores[i * args.threads : (i + 1) * args.threads] if pinned else [] for i in range(args.workers + 1)]
    workers = [_start(args, until, group, number < args.judges) for number, group in enumerate(groups[:-1])]
    chosen = _chosen(args, len(shop.plan.adapters))
    if pinned:
        os.sched_setaffinity(0, groups[-1])
    began = time.time()
    _leave_room(args.share)
    try:
        train_all(shop, args.width, until, chosen, args.rungs)
        say(f"trained for {time.time() - began:.0f} s")
        (args.work / TRAINED).touch()
        _free()
        workers.append(_start(args, until, groups[-1], True))
        for worker in workers:
            worker.wait()
    finally:
        for worker in workers:
            worker.kill()
        write_records(shop, args.records, chosen)


def _start(args: argparse.Namespace, until: float, cores: Sequence[int], judge: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "work", "--base", args.base, "--work", args.work, "--threads", args.threads,
               "--until", until, "--adapters", args.adapters, "--cores", ",".join(map(str, cores)),
               "--pieces", *args.pieces, *["--judge"] * judge]
    return subprocess.Popen([str(part) for part in command], env={**os.environ, "PYTHONPATH": _path()})


def _path() -> str:
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def _leave_room(share: float) -> None:
    """Keep to a share of the GPU's memory, for those who judge need some."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def _free() -> None:
    import torch

    from autotune.pipeline.resident import release

    release()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def work(args: argparse.Namespace) -> None:
    """A process of ``train``: judges, assembles and asks."""
    if args.cores:
        os.sched_setaffinity(0, [int(core) for core in args.cores.split(",")])
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    from benchmarks.replay.recorder import Worker

    shop = Workshop(args.work, args.base)
    Worker(shop, args.threads, args.pieces, _chosen(args, len(shop.plan.adapters)), args.judge).run(args.until)


def records(args: argparse.Namespace) -> None:
    """What ``train`` has recorded so far, in a file; may be called while it goes on."""
    shop = Workshop(args.work, args.base)
    write_records(shop, args.records, _chosen(args, len(shop.plan.adapters)))


def write_records(shop: Workshop, file: Path, chosen: Sequence[int]) -> None:
    """What was recorded so far, in one file."""
    from benchmarks.replay.recorder import settings

    found: dict[str, Any] = {"settings": settings(), "adapters": list(chosen), "written": time.strftime("%Y-%m-%d")}
    for kind in ("training", "judged", "answers"):
        files = sorted((shop.root / kind).glob("*.json"))
        found[kind] = {f.stem: read_json(f) for f in files}
    with gzip.open(file, "wt", encoding="utf-8") as out:
        json.dump(found, out)
    print(f"{file}: {', '.join(f'{len(found[kind])} {kind}' for kind in ('training', 'judged', 'answers'))}")


def measure(args: argparse.Namespace) -> None:
    """Seconds of each piece of work on this machine, and the deploy points' latency and size."""
    from benchmarks.replay.costs import Costs

    args.costs.mkdir(parents=True, exist_ok=True)
    costs = Costs(Workshop(args.work, args.base), args.costs.resolve(), args.threads)
    costs.measure(args.only, time.time() + args.seconds)


def join(args: argparse.Namespace) -> None:
    """The table out of records and costs."""
    from autotune.run_folder import environment
    from benchmarks.replay.joining import Join, write_table

    joined = Join(Workshop(args.work, args.base), args.records, args.costs, args.threads)
    about, made = environment(), joined.settings
    recorder = f"{made['gpu'] or 'no GPU'}, {made['machine']['cores_logical']} cores of {made['machine']['cpu']}"
    notes = [args.note.read_text(encoding="utf-8").strip()] if args.note else []
    table = joined.table({
        "command": "python benchmarks/replay/record_table.py plan, train, measure, join",
        "machines": {"training": recorder, "answers": recorder,
                     "costs": f"{about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB, "
                     f"{args.threads} threads"},
        "versions": {"recorded": made["versions"], "costs": about["libraries"]},
        "date": time.strftime("%Y-%m-%d"),
        "costs": COSTS, "notes": notes,
    })
    write_table(table, args.out)
    print(f"{args.out}: {len(table['adapters'])} adapters, {args.out.stat().st_size} bytes")


def _chosen(args: argparse.Namespace, count: int) -> list[int]:
    start, _, stop = args.adapters.partition(":")
    return list(range(count))[int(start or 0) : int(stop or count)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, do in (("plan", plan), ("train", train), ("records", records), ("work", work),
                     ("measure", measure), ("join", join)):
        own = commands.add_parser(name, help=(do.__doc__ or "").splitlines()[0])
        own.set_defaults(do=do)
        own.add_argument("--work", type=Path, required=True, help="the folder that it all happens in")
        own.add_argument("--base", type=Path, required=True, help="the base model's Hugging Face folder")
        if name == "plan":
            for split in ("train", "valid", "test"):
                own.add_argument(f"--{split}", type=Path, required=True, help="rows {phrase, tone}")
            own.add_argument("--train-rows", type=int, default=1600)
            own.add_argument("--count", type=int, default=48, help="of adapters")
            own.add_argument("--seed", type=int, default=0)
            own.add_argument("--context", type=int, default=1024, help="tokens")
            continue
        own.add_argument("--threads", type=int, default=2, help="of each worker, or that are measured")
        if name in ("measure", "join"):
            own.add_argument("--costs", type=Path, required=True, help="a folder")
        if name == "join":
            own.add_argument("--records", type=Path, nargs="+", required=True, help="what train wrote")
            own.add_argument("--note", type=Path, help="a text for the table's provenance")
            own.add_argument("--out", type=Path, required=True, help="the table, .json.gz")
            continue
        if name == "measure":
            own.add_argument("--only", nargs="+", default=[""], help="pieces whose names begin so")
            own.add_argument("--seconds", type=float, default=1e9, help="after which nothing more is begun")
            continue
        own.add_argument("--pieces", type=int, nargs="+", default=[0, 1, 2, 3], help="of the rows, see drawing.PIECES")
        own.add_argument("--adapters", default=":", help="which of them, as in a slice: 0:26")
        if name in ("train", "records"):
            own.add_argument("--records", type=Path, required=True, help="the file to write, .json.gz")
        if name == "train":
            own.add_argument("--width", type=int, default=16, help="adapters that train together")
            own.add_argument("--workers", type=int, default=7, help="beside the one that trains")
            own.add_argument("--rungs", type=int, help="only the first so many")
            own.add_argument("--share", type=float, default=0.68, help="of the GPU's memory, for training")
            own.add_argument("--judges", type=int, default=3, help="of the workers, while adapters train")
            own.add_argument("--seconds", type=float, default=1e9, help="after which nothing more is begun")
        if name == "work":
            own.add_argument("--until", type=float, required=True)
            own.add_argument("--cores", default="")
            own.add_argument("--judge", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    args = arguments()
    args.do(args)
