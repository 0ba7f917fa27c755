"""Seconds, memory and bytes of templates, deploy points and assembly at the size of a real model.

    python benchmarks/real_size.py --shape llama-3.2-1b|phi-3-mini [--layers N] [--work DIR]

Writes a random model of that shape (bf16) and a random adapter (rank 16, all linear layers), then does each of these in
a fresh process: ModelBuilder's own int4 build of the model, our template, and at fp16, int8, int4 and int4 k_quant the
deploy point and the adapter's artifact. What it checks: assembling holds at most 2 GiB above an idle process that has
imported the same libraries; it exits 1 where that fails.

- ``peak RSS`` is the kernel's own high-water mark (VmHWM): it counts mapped pages of files, which go when others need
  the memory.
- ``peak anonymous`` is what cannot go (RssAnon of /proc/PID/status, the Anonymous of smaps_rollup at the price of a
  counter), sampled 50 times a second; ``peak mapped`` is RssFile likewise.
- ``read`` and ``written`` are bytes through read and write calls. Weights that are read through a mapping are in
  ``peak mapped`` instead; ``from disk`` is what was not in the system's cache (all of it, if nothing was).

Linux only. Disk and memory needed are printed first; where they are not there it ends with a sentence.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import record
from benchmarks.shapes import SHAPES, ModelShape, tensors
from search_spaces.deploy import DeployParams

HERE = Path(__file__).resolve().parent
POINTS = {p.label: p for p in (DeployParams("fp16"), DeployParams("int8"), DeployParams("int4"),
                               DeployParams("int4", algorithm="k_quant"))}
GIB = 1 << 30
ASSEMBLY_MAY_HOLD = 2 * GIB
_SAMPLE_S = 0.02
_PROCESS_BYTES = 1.2 * GIB
_ROPE_AND_ADAPTER_BYTES = 0.3 * GIB
#: With scales and zero points of blocks of 32.
_BYTES_A_WEIGHT = {"fp16": 2.0, "int8": 1.2, "int4": 0.7}
_MEMORY = ("VmHWM", "RssAnon", "RssFile")


@dataclasses.dataclass(frozen=True)
class Needs:
    """Bytes, by arithmetic on the shape. ``memory`` is that of the hungriest task, which ``hungriest`` names."""

    disk: float
    memory: float
    hungriest: str


@dataclasses.dataclass(frozen=True)
class Taken:
    """What one task took. Memory in bytes at its peak; ``size`` is what it left in its folder, links not counted."""

    task: str
    seconds: float
    peak_rss: int
    anonymous: int
    mapped: int
    read: int
    written: int
    fetched: int
    size: int

    def row(self) -> str:
        figures = [self.peak_rss, self.anonymous, self.mapped, self.read, self.written, self.fetched, self.size]
        return f"| {self.task} | {self.seconds:.1f} | " + " | ".join(f"{b / 1e6:.0f}" for b in figures) + " |"


class TaskError(Exception):
    """A task's process failed; the message is the last that it said."""


def needs(shape: ModelShape, layers: int | None, points: Sequence[DeployParams], with_builder: bool) -> Needs:
    sizes = {name: math.prod(dims) for name, dims in tensors(shape, layers)}
    whole, embedding = sum(sizes.values()), sizes["model.embed_tokens.weight"]
    beside = embedding + sizes.get("lm_head.weight", 0)
    in_layers = whole - beside
    point = max(whole * _BYTES_A_WEIGHT[p.precision] + in_layers * _BYTES_A_WEIGHT[p.precision] for p in points)
    kept = whole * 2 + beside * 4 + _ROPE_AND_ADAPTER_BYTES
    # ModelBuilder holds a tied head apart from the embedding, and the head once more while it rounds it; a session
    # holds its weights twice while it loads them, fp16 ones as fp32.
    graph = (in_layers + 2 * embedding) * 4
    memory = {"the template": graph}
    for p in points:
        held = 4.0 if p.precision == "fp16" else _BYTES_A_WEIGHT[p.precision]
        memory[f"the point {p.label}"] = max(2 * whole * held, 2 * embedding * 4)
    if with_builder:
        memory["ModelBuilder's own build"] = graph + 2 * embedding * 4
    hungriest = max(memory, key=lambda task: memory[task])
    return Needs(kept + point, memory[hungriest] + _PROCESS_BYTES, hungriest)


def refusal(found: Needs, free_disk: float, free_memory: float) -> str | None:
    """Why the machine is too small; None when it is not."""
    if found.disk > free_disk:
        return (f"disk: about {found.disk / 1e9:.1f} GB needed, {free_disk / 1e9:.1f} GB free; accepted is a --work on "
                "a larger disk, or fewer --layers")
    if found.memory > free_memory:
        return (f"memory: about {found.memory / 1e9:.1f} GB needed for {found.hungriest}, {free_memory / 1e9:.1f} GB "
                "free; accepted are fewer --layers, smaller --points, or --skip-builder")
    return None


def run_task(folder: Path, task: str, title: str = "", **job: Any) -> Taken:
    """One task in a fresh process. Raises TaskError."""
    out = folder / "out"
    file = folder / "job.json"
    file.write_text(json.dumps({"task": task, "out": str(out), "base": str(folder / "base"), **job}), encoding="utf-8")
    with (folder / "log").open("w+", encoding="utf-8") as log:
        command = [sys.executable, str(HERE / "real_size_task.py"), str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as child:
            try:
                peaks = watch(child)
            except BaseException:
                child.kill()
                raise
            printed = child.stdout.read().splitlines() if child.stdout else []
        if child.returncode:
            log.seek(0)
            said = [line for line in log.read().splitlines() if line.strip()][-1:] or ["nothing"]
            raise TaskError(f"{title or task} ended with exit code {child.returncode}; it last said: {said[0][:300]}")
    result = json.loads(printed[-1])
    made = folder / "base" if task == "model" else out
    return Taken(title or task, result["seconds"], peaks["VmHWM"], peaks["RssAnon"], peaks["RssFile"], result["read"],
                 result["written"], result["fetched"], new_bytes(made))


def watch(child: subprocess.Popen[str]) -> dict[str, int]:
    """The largest of each memory figure of a process while it lives, in bytes."""
    peaks = dict.fromkeys(_MEMORY, 0)
    while child.poll() is None:
        try:
            lines = Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8").splitlines()
        except OSError:
            break
        now = dict(line.split(":", 1) for line in lines)
        for name in _MEMORY:
            if name in now:  # a process that has ended has none
                peaks[name] = max(peaks[name], int(now[name].split()[0]) * 1024)
        time.sleep(_SAMPLE_S)
    return peaks


def new_bytes(folder: Path) -> int:
    """Of files that no other folder links too."""
    found = (file.stat() for file in folder.rglob("*") if file.is_file())
    return sum(f.st_size for f in found if f.st_nlink == 1)


def measure(folder: Path, args: argparse.Namespace) -> list[Taken]:
    taken: list[Taken] = []

    def add(task: str, title: str = "", **job: Any) -> Path:
        taken.append(run_task(folder, task, title, **job))
        print(f"{taken[-1].row()}", file=sys.stderr, flush=True)
        kept = folder / (title or task).replace(" ", "-")
        if (folder / "out").exists():
            (folder / "out").rename(kept)
        return kept

    add("idle", "idle process")
    add("model", "writing the model", shape=args.shape, layers=args.layers)
    adapter = add("adapter", "writing the adapter")
    if not args.skip_builder:
        int4 = dataclasses.asdict(DeployParams("int4"))
        shutil.rmtree(add("ModelBuilder", "ModelBuilder's int4 build", point=int4))
    template = add("template", context=args.context)
    for point in (POINTS[label] for label in args.points):
        job = {"point": dataclasses.asdict(point), "context": args.context}
        made = add("point", f"point {point.label}", template=str(template), **job)
        shutil.rmtree(add("assemble", f"artifact {point.label}", made=str(made), adapter=str(adapter)))
        shutil.rmtree(made)
    return taken


def tables(taken: list[Taken]) -> list[str]:
    lines = ["| task | s | peak RSS MB | peak anonymous MB | peak mapped MB | read MB | written MB | from disk MB | "
             "left MB |", "|---|---|---|---|---|---|---|---|---|", *(t.row() for t in taken), ""]
    above = assembly_above_idle(taken)
    worst = max(above, key=lambda title: above[title])
    holds = "stays" if above[worst] <= ASSEMBLY_MAY_HOLD else "does NOT stay"
    lines.append(f"Assembly {holds} within {ASSEMBLY_MAY_HOLD / GIB:g} GiB above an idle process: at most "
                 f"{above[worst] / GIB:.2f} GiB of anonymous memory ({worst}).")
    seconds = {t.task: t.seconds for t in taken}
    own, assembled = seconds.get("ModelBuilder's int4 build"), seconds.get("artifact int4-b32")
    if own and assembled:
        lines += ["", f"ModelBuilder's int4 build ÷ assembling int4: {own / assembled:.1f}."]
    return lines


def assembly_above_idle(taken: list[Taken]) -> dict[str, int]:
    """Bytes of anonymous memory at the peak of each assembly, less an idle process's."""
    idle = next(t for t in taken if t.task == "idle process").anonymous
    return {t.task: t.anonymous - idle for t in taken if t.task.startswith("artifact ")}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--layers", type=int, help="fewer than the model has")
    parser.add_argument("--points", nargs="+", choices=POINTS, default=list(POINTS))
    parser.add_argument("--context", type=int, default=4096, help="the artifacts' context length in tokens")
    parser.add_argument("--work", type=Path, help="where a scratch folder is made, and removed; default: temporary")
    parser.add_argument("--skip-builder", action="store_true", help="leave out ModelBuilder's own build")
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    args = parser.parse_args()
    if args.layers is not None and args.layers < 1:
        parser.error(f"--layers: {args.layers} found; accepted is at least 1")
    return args


def main() -> None:
    import psutil

    args = options()
    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="real-size-", dir=args.work) as scratch:
        points = [POINTS[label] for label in args.points]
        found = needs(SHAPES[args.shape], args.layers, points, not args.skip_builder)
        print(f"needed: about {found.disk / 1e9:.1f} GB of disk, and {found.memory / 1e9:.1f} GB of memory for "
              f"{found.hungriest}", file=sys.stderr, flush=True)
        reason = refusal(found, shutil.disk_usage(scratch).free, psutil.virtual_memory().available)
        if reason:
            sys.exit(reason)
        os.environ["TMPDIR"] = scratch
        try:
            taken = measure(Path(scratch), args)
        except TaskError as error:
            sys.exit(str(error))
    lines = tables(taken)
    print("\n".join(lines))
    if not args.no_record:
        command = (f"python benchmarks/real_size.py --shape {args.shape} --context {args.context} "
                   f"--points {' '.join(args.points)}"
                   + (f" --layers {args.layers}" if args.layers else "") + " --skip-builder" * args.skip_builder)
        record("At real size", command, "Random weights in bf16; each task in a fresh process, import of the libraries "
               "not counted; one reading each.", lines)
    sys.exit(0 if max(assembly_above_idle(taken).values()) <= ASSEMBLY_MAY_HOLD else 1)


if __name__ == "__main__":
    main()
