"""Whether an artifact written into a template equals ModelBuilder's full build, to the last bit, on a real model.

    python benchmarks/bit_for_bit.py MODEL_FOLDER [--context 1024]

A random adapter (rank 16, all linear layers) is assembled at each deploy point, and for each the model with the
adapter merged into it is built from the beginning by ModelBuilder, with our graph edits applied to both. Compared are
the graph and every initializer, wherever it lies in the files. tests/test_template.py does the same with tiny models
of every architecture. Exits 1 where one differs; the table goes to RESULTS.md beside this file.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.adapters import merge_whole, random_adapter
from benchmarks.record import record
from search_spaces.deploy import DeployParams

POINTS = (
    DeployParams("fp32"), DeployParams("fp16"), DeployParams("int8"), DeployParams("int8", symmetric=False),
    DeployParams("int4"), DeployParams("int4", symmetric=False), DeployParams("int4", block_size=64),
    DeployParams("int4", block_size=128), DeployParams("int4", algorithm="k_quant"),
    DeployParams("int4", algorithm="rtn"), DeployParams("int4", int8_where="head"),
    DeployParams("int4", int8_where="mixed_layers"), DeployParams("int4", share_embedding=False),
    DeployParams("int4", prune_head=False),
)


def compare(base: Path, adapter: Path, merged: Path, scratch: Path, point: DeployParams, context: int) -> str:
    """The row of one deploy point; its two artifacts are gone afterwards."""
    from autotune.pipeline.assemble import assemble
    from autotune.pipeline.point import make_point
    from tests.running import full_build

    made = scratch / point.label
    made.mkdir()
    make_point(template_of(scratch, point, context), base, made / "point", point, "cpu", context)
    ours = assemble(made / "point", base, adapter, made / "artifact").path
    theirs = full_build(merged, made / "full", point, context)
    different, initializers, size = differences(ours, theirs)
    shutil.rmtree(made)
    verdict = "equal" if not different else "DIFFERENT: " + ", ".join(different[:3])
    return f"| {point.label} | {initializers} | {size / 1e6:.1f} | {verdict} |"


def differences(ours: Path, theirs: Path) -> tuple[list[str], int, int]:
    """Names of what differs, how many initializers were compared, and their bytes."""
    from tests.running import data_of, graph_of

    found, expected = data_of(ours), data_of(theirs)
    names = sorted(found.keys() ^ expected.keys())
    names += [name for name, array in expected.items() if name in found
              and (found[name].dtype != array.dtype or found[name].tobytes() != array.tobytes())]
    if graph_of(ours) != graph_of(theirs):
        names.append("the graph")
    return names, len(expected), sum(array.nbytes for array in expected.values())


def template_of(scratch: Path, point: DeployParams, context: int) -> Path:
    """Points share a template where ModelBuilder's graph before their edits is the same: one with all logits is not."""
    from autotune.pipeline.template_params import template_params

    wanted = template_params(point, "cpu", context)
    kinds = list(dict.fromkeys(template_params(p, "cpu", context) for p in POINTS))
    return scratch / f"template-{kinds.index(wanted)}"


def prepare(base: Path, scratch: Path, context: int, points: Sequence[DeployParams]) -> tuple[Path, Path]:
    """Every template that the points want into ``scratch``; the adapter and the merged model."""
    from autotune.pipeline.template import make_template
    from autotune.pipeline.template_params import template_params

    for point in points:
        if not (template := template_of(scratch, point, context)).exists():
            make_template(base, template, template_params(point, "cpu", context))
    adapter = random_adapter(base, scratch / "adapter")
    return adapter, merge_whole(base, adapter, scratch / "merged")


def in_process(function: Callable[..., Any], *args: Any) -> Any:
    """In a process of its own, whose memory goes with it."""
    with ProcessPoolExecutor(max_workers=1) as pool:
        return pool.submit(function, *args).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--points", nargs="+", choices=[p.label for p in POINTS], help="default: all of them")
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    args = parser.parse_args()
    base = args.model.resolve()
    points = [p for p in POINTS if not args.points or p.label in args.points]
    lines = ["| artifact of an adapter | initializers | MB compared | graph and initializers |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory(prefix="bit-for-bit-") as name:
        scratch = Path(name)
        adapter, merged = in_process(prepare, base, scratch, args.context, points)
        for point in points:
            lines.append(in_process(compare, base, adapter, merged, scratch, point, args.context))
            print(lines[-1], flush=True)
    equal = sum(line.endswith("| equal |") for line in lines)
    lines += ["", f"{equal} of {len(points)} are equal to the last bit."]
    print(lines[-1])
    if not args.no_record:
        command = f"python benchmarks/bit_for_bit.py {base.name} --context {args.context}"
        record("Bit for bit", command + (f" --points {' '.join(args.points)}" if args.points else ""), "", lines)
    sys.exit(0 if equal == len(points) else 1)


if __name__ == "__main__":
    main()
