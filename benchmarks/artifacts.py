"""Size, seconds and agreement of every deploy point on one model, and an adapter's artifact beside ModelBuilder's.

    python benchmarks/artifacts.py MODEL_FOLDER [--threads 2] [--context 1024] [--repeats 3]

1. One template is made of the model, and from it each deploy point, which is asked the next token of the same prompts
   as the fp32 one.
2. A random adapter (rank 16, all linear layers) is assembled at each point, from the adapter to the committed entry of
   a store: merged, encoded, written, hashed and synced, as a study does it.
3. At int8 and int4, ModelBuilder's own full build of the merged model runs in turn with the assembly; the ratio is of
   the medians. Merging (with PEFT, beforehand) is outside ModelBuilder's time and inside ours. The claim that is
   checked: assembling int4 takes at most an eighth of ModelBuilder's time.

Stages run in a worker process whose libraries are imported before any clock starts, one for each side. Figures are
printed and appended to RESULTS.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from autotune.pipeline import builder, stages
from autotune.pipeline.architectures import read_config
from autotune.pipeline.template_params import template_params
from autotune.storage.entry_key import make_key
from autotune.storage.store import Entry, Store
from autotune.workers import Worker
from benchmarks.adapters import merge_whole, random_adapter
from benchmarks.record import record
from search_spaces.deploy import DeployParams

POINTS = (
    DeployParams("fp32"), DeployParams("fp16"), DeployParams("int8"), DeployParams("int8", symmetric=False),
    DeployParams("int4"), DeployParams("int4", symmetric=False), DeployParams("int4", algorithm="rtn"),
    DeployParams("int4", algorithm="k_quant"), DeployParams("int4", int8_where="head"),
    DeployParams("int4", block_size=128),
)
BESIDE_BUILDER = (DeployParams("int8"), DeployParams("int4"))
CLAIMED = 8.0
PROMPTS = (
    "The weather this morning was", "She opened the letter and", "In order to install the package you",
    "Once upon a time there", "The capital of France is", "He shouted so loudly that",
)


class Bench:
    """The model, its template, and a store in ``scratch``."""

    def __init__(self, model: Path, scratch: Path, threads: int, context: int) -> None:
        self.model, self.scratch, self.threads, self.context = model, scratch, threads, context
        self.ours, self.builders = Worker(scratch / "ours.log"), Worker(scratch / "builder.log")
        for worker in (self.ours, self.builders):
            worker.run(import_all)
        self.store = Store(scratch / "store")
        self._params = template_params(POINTS[0], "cpu", context)
        self._eos = first_eos(model)
        began = time.perf_counter()
        self.ours.run(stages.make_template, model, scratch / "template", self._params)
        self.template_s = time.perf_counter() - began
        self.adapter = self.ours.run(random_adapter, model, scratch / "adapter")
        (scratch / "no-mend").mkdir()

    def point(self, point: DeployParams) -> Entry:
        """The base's own artifact, as a store's entry; ``seconds`` are without hashing and syncing."""
        assert template_params(point, "cpu", self.context) == self._params
        return self.store.make(make_key("point", 1, {"label": point.label}), lambda out: self.ours.run(
            stages.make_point, self.scratch / "template", self.model, out, point, "cpu", self.context))

    def assemble(self, point: Entry) -> float:
        """Seconds from the adapter to the committed entry, which is dropped again."""
        key = make_key("artifact", 1, {"point": str(point.key)})
        began = time.perf_counter()
        self.store.make(key, lambda out: self.ours.run(
            stages.make_artifact, point.path, self.model, self.adapter, self.scratch / "no-mend", self._eos, out,
            reporting=True), [point])
        seconds = time.perf_counter() - began
        self.store.drop(key)
        return seconds

    def build(self, merged: Path, point: DeployParams) -> float:
        """Seconds of ModelBuilder on the merged model at the very precision, quantizing and saving by itself."""
        out = self.scratch / "built"
        began = time.perf_counter()
        self.builders.run(own_build, merged, out, point)
        seconds = time.perf_counter() - began
        shutil.rmtree(out)
        return seconds

    def close(self) -> None:
        self.ours.close()
        self.builders.close()


def import_all() -> None:
    """What a worker of a study has imported by its first assembly, and ModelBuilder."""
    import onnxruntime_genai.models.builder
    import peft
    import transformers

    from autotune.pipeline import assemble, template, train  # noqa: F401
    from tests import running  # noqa: F401

    for name in ("AutoModelForCausalLM", "AutoConfig", "AutoTokenizer"):
        getattr(transformers, name)  # imported when they are first asked for
    assert peft
    assert onnxruntime_genai.models.builder


def own_build(source: Path, out: Path, point: DeployParams) -> None:
    """ModelBuilder alone: its graph, its rounding, its saving, with the settings of ``point``."""
    from tests.running import builder_options

    options = builder_options(point, shared=builder.tied(source))
    builder.build(source, out, point.precision, "cpu", options)


def first_eos(model: Path) -> int:
    eos = read_config(model).get("eos_token_id") or 0
    return int(eos[0] if isinstance(eos, list) else eos)


def next_logits(artifact: Path, shortest: int, prompts: list[list[int]], threads: int) -> np.ndarray:
    """Logits [prompt, vocab] of the next token."""
    from objectives.session import ids_array, new_generator, open_model

    model = open_model(artifact, "cpu", {}, threads)
    rows = []
    for prompt in prompts:
        generator = new_generator(model, max(shortest, len(prompt) + 1))
        generator.append_tokens(ids_array(prompt))
        rows.append(np.array(generator.get_logits()).reshape(-1, generator.get_logits().shape[-1])[-1])
    return np.stack(rows)


def points_table(bench: Bench, prompts: list[list[int]]) -> list[str]:
    lines = [f"The template took {bench.template_s:.1f} s.", "",
             "| artifact | MB | point s | adapter's artifact s | max abs logit difference to fp32 | same top token |",
             "|---|---|---|---|---|---|"]
    print(lines[0], flush=True)
    reference: np.ndarray | None = None
    for point in POINTS:
        entry = bench.point(point)
        info = json.loads((entry.path / stages.INFO_FILE).read_text(encoding="utf-8"))
        assembly = bench.assemble(entry)
        reader = Worker(bench.scratch / "reader.log")  # a session's memory goes with its process
        logits = reader.run(next_logits, entry.path / stages.ARTIFACT_FOLDER, info["min_generator_length"], prompts,
                            bench.threads)
        reader.close()
        reference = logits if reference is None else reference
        same = int((logits.argmax(1) == reference.argmax(1)).sum())
        lines.append(f"| {point.label} | {info['size_bytes'] / 1e6:.1f} | {entry.seconds:.1f} | {assembly:.2f} | "
                     f"{float(np.abs(logits - reference).max()):.3g} | {same} of {len(prompts)} |")
        print(lines[-1], flush=True)
        if point not in BESIDE_BUILDER:
            bench.store.drop(entry.key)
    return lines


def builder_table(bench: Bench, repeats: int) -> list[str]:
    merged = bench.builders.run(merge_whole, bench.model, bench.adapter, bench.scratch / "merged")
    ours: dict[str, list[float]] = {point.label: [] for point in BESIDE_BUILDER}
    theirs: dict[str, list[float]] = {point.label: [] for point in BESIDE_BUILDER}
    for turn in range(repeats):
        for point in BESIDE_BUILDER:
            ours[point.label].append(bench.assemble(bench.point(point)))
            theirs[point.label].append(bench.build(merged, point))
            print(f"turn {turn + 1} of {repeats}: {point.label}: assembled in {ours[point.label][-1]:.2f} s, "
                  f"ModelBuilder {theirs[point.label][-1]:.2f} s", flush=True)
    lines = ["", "| artifact of an adapter | assembled s | ModelBuilder's full build s | ratio of medians |",
             "|---|---|---|---|"]
    ratios = {}
    for label in ours:
        ratios[label] = statistics.median(theirs[label]) / statistics.median(ours[label])
        lines.append(f"| {label} | {shown(ours[label])} | {shown(theirs[label])} | {ratios[label]:.1f} |")
    int4 = DeployParams("int4").label
    holds = "holds" if ratios[int4] >= CLAIMED else "does NOT hold"
    return [*lines, "", f"Assembling {int4} in at most 1/{CLAIMED:g} of ModelBuilder's time {holds} here."]


def shown(seconds: list[float]) -> str:
    return ", ".join(f"{s:.2f}" for s in seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3, help="of each side beside ModelBuilder")
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    args = parser.parse_args()

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.model, local_files_only=True)
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(args.model.resolve(), Path(scratch), args.threads, args.context)
        try:
            lines = points_table(bench, prompts)
            lines += builder_table(bench, args.repeats)
        finally:
            bench.close()
    print("\n".join(lines))
    if not args.no_record:
        command = (f"python benchmarks/artifacts.py {args.model.name} --threads {args.threads} --context "
                   f"{args.context} --repeats {args.repeats}")
        record("Artifacts", command, "A point's seconds are those of its stage; the others' are from the call to the "
               "committed entry of the store, or to ModelBuilder's return.", lines)


if __name__ == "__main__":
    main()
