"""One task of real_size.py in a process of its own: prints what it took as one line of JSON.

    python benchmarks/real_size_task.py JOB.json

Everything is imported before the clock starts, the same for every task, so that the task ``idle`` tells what of the
memory is libraries.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from autotune.pipeline.assemble import assemble
from autotune.pipeline.point import make_point
from autotune.pipeline.template import make_template
from autotune.pipeline.template_params import template_params
from benchmarks.adapters import random_adapter
from benchmarks.artifacts import import_all, own_build
from benchmarks.shapes import SHAPES, write_model
from search_spaces.deploy import DeployParams


def counters() -> dict[str, int]:
    """Bytes through read and write calls so far, and those fetched from a disk."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    found = {name: int(value) for name, value in (line.split(": ") for line in lines)}
    return {"read": found["rchar"], "written": found["wchar"], "fetched": found["read_bytes"]}


def perform(job: dict[str, Any]) -> None:
    base, out = Path(job["base"]), Path(job["out"])
    point = DeployParams(**job["point"]) if job.get("point") else None
    match job["task"]:
        case "idle":
            pass
        case "model":
            write_model(SHAPES[job["shape"]], job["layers"], base)
        case "adapter":
            random_adapter(base, out)
        case "ModelBuilder":
            assert point
            own_build(base, out, point)
        case "template":
            make_template(base, out, template_params(DeployParams("fp32"), "cpu", job["context"]))
        case "point":
            assert point
            make_point(Path(job["template"]), base, out, point, "cpu", job["context"])
        case "assemble":
            assemble(Path(job["made"]), base, Path(job["adapter"]), out)
        case unknown:
            raise ValueError(f"task {unknown!r}")


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    import_all()
    before, began = counters(), time.perf_counter()
    perform(job)
    seconds = time.perf_counter() - began
    moved = {name: value - before[name] for name, value in counters().items()}
    print(json.dumps({"seconds": seconds, **moved}), flush=True)
    time.sleep(0.2)  # for whoever samples the memory of the idle process


if __name__ == "__main__":
    main()
