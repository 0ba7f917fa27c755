"""Many adapters in one pass beside PEFT one after the other: same adapters, same batches, on one machine, in one run.

    python benchmarks/packed_training.py --shapes llama-135m qwen-0.5b phi-3-mini [--adapters 16]
        [--batches 8x128 16x512] [--variants eager compiled graphed] [--peft-compiled]
        [--distance llama-135m [--distance-steps 20]] [--profile] [--budget 540] [--record FILE] [--smoke]

Random weights of real shapes, in bf16; every row has the same number of tokens, the last of them the answer. Adapters
are LoRA r 16 on all linear modules, each with a seed, an order of rows and a learning rate of its own. Both sides run
the engine's own loops (learning-rate schedule, clipping, AdamW, a loss on answer tokens alone), and each step is timed
from the end of the one before it, the losses read, so nothing is left out. Figures are medians of the steps after the
first three (PEFT: after the first one of each adapter). PEFT's tokens a second are those of one adapter at a time,
which is what all of them take one after the other.

--distance SHAPE says how far adapters trained on the bf16 base end from the same ones trained alone on the same base
in fp32, both packed and alone through PEFT: the norm of the difference over that of the fp32 adapter. It
trains as many adapters as `--adapters` says. With `--shapes` and nothing after it, that is all that is done.

A configuration that fails says so, and the others go on. One that runs out of memory goes on with fewer adapters, as
the engine does, and says how many.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import packed_figures as figures  # noqa: E402
from benchmarks.shapes import SHAPES, ModelShape  # noqa: E402
from search_spaces.adapter import AdapterParams  # noqa: E402

RANK = 16
ANSWERS = 2
SMOKE = ModelShape("LlamaConfig", {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 400, "max_position_embeddings": 2048, "tie_word_embeddings": True,
}, fused=False)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Speed:
    """Medians of one way to train: ``together`` adapters a step, ``seconds`` a step."""

    way: str
    together: int
    seconds: float
    tokens_s: float
    peak_gb: float


class Clock:
    """A Report that notes when each step ended, and how many adapters trained in it."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def __call__(self, done: float, total: float, note: str = "") -> None:
        self.ends.append((time.perf_counter(), done))

    def steps(self) -> list[tuple[float, int]]:
        """(Seconds, adapters) of each step but the first."""
        pairs = zip(self.ends, self.ends[1:], strict=False)
        return [(end - start, int(after - before)) for (start, before), (end, after) in pairs]


def say(text: str) -> None:
    print(text, flush=True)


def make_model(shape: ModelShape, device: Any, folder: Path) -> Any:
    """A frozen random model on the device, and its configuration in the folder."""
    import torch
    import transformers

    config = getattr(transformers, shape.config_class)(**shape.config)
    config.architectures = [shape.config_class.replace("Config", "ForCausalLM")]
    config.save_pretrained(folder)
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    return model.eval().requires_grad_(False)


def make_data(shape: ModelShape, tokens: int, examples: int = 512) -> Any:
    import random

    from autotune.pipeline.tokens import Example, TokenizedData

    rng = random.Random(0)
    rows = [[rng.randrange(3, shape.config["vocab_size"]) for _ in range(tokens)] for _ in range(examples)]
    train = tuple(Example(tuple(row[:-ANSWERS]), tuple(row[-ANSWERS:]), "", "") for row in rows)
    return TokenizedData("choice", False, 1, train, (), ())


def jobs(count: int, steps: int, rows: int, folder: Path) -> list[Any]:
    from autotune.pipeline.packed.job import AdapterJob

    return [
        AdapterJob(AdapterParams(RANK, 16.0, 1e-4 * (1 + i), steps=steps, batch_size=rows), folder / f"{i}", seed=i)
        for i in range(count)
    ]


def sequential(model: Any, base: Path, data: Any, wanted: Sequence[Any], way: str, skip: int) -> Speed:
    from autotune.pipeline.peft_training import train_through_peft

    seconds: list[float] = []
    reset_peak()
    tokens = 0
    for job in wanted:
        clock = Clock()
        state, _ = train_through_peft(model, base, data, job.params, job.out, job.seed, clock)
        seconds += [s for s, _ in clock.steps()[skip:]]
        tokens = state.tokens // state.step
    median = statistics.median(seconds)
    return Speed(way, 1, median, tokens / median, peak())


def packed(
    model: Any, base: Path, data: Any, wanted: Sequence[Any], way: str, speed: Any, width: int | None
) -> Speed:
    from autotune.errors import TrainingError
    from autotune.pipeline.packed.engine import train_packed

    clock = Clock()
    reset_peak()
    results = train_packed(model, base, data, wanted, report=clock, width=width, speed=speed)
    failed = [r for r in results if isinstance(r, TrainingError)]
    if failed:
        raise failed[0]
    together = max(n for _, n in clock.steps())
    # The first of a full pack builds kernels, compiles and captures; so may the second.
    full = [s for s, n in clock.steps() if n == together][3:]
    median = statistics.median(full)
    tokens = results[0].tokens // results[0].steps  # type: ignore[union-attr]
    return Speed(way, together, median, together * tokens / median, peak())


def reset_peak() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak() -> float:
    import torch

    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else float("nan")


class Run:
    """One run of the benchmark: what it is asked, and the lines of its tables."""

    def __init__(self, args: argparse.Namespace) -> None:
        import torch

        self.args = args
        self.began = time.perf_counter()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.lines: list[str] = []
        self.limit = 0.0

    def note(self, *lines: str) -> None:
        for line in lines:
            say(line)
        self.lines += lines
        if self.args.record:
            self.args.record.write_text("\n".join([*self.lines, ""]), encoding="utf-8")

    def attempt(self, what: str, work: Callable[[], Any]) -> Any:
        """What ``work`` gives; None, and the reason said, where it fails or the time is up."""
        if time.perf_counter() - self.began > self.args.budget:
            say(f"{what}: left out, the time is up")
            return None
        try:
            return work()
        except Exception as error:  # noqa: BLE001
            lines = traceback.format_exc().strip().splitlines()
            say(f"{what}: FAILED: {type(error).__name__}")
            say("\n".join(lines[-12:]))
            return None

    def all(self) -> None:
        import torch

        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        size = 256 if self.args.smoke else 8192
        self.limit = figures.matmul_peak(self.device, size)
        copy = figures.bandwidth(self.device, size * size * 8)
        self.note(f"{name}, torch {torch.__version__}: bf16 product of {size}³ at {self.limit / 1e12:.0f} TFLOP/s, "
                  f"copy at {copy / 1e12:.2f} TB/s.", "")
        for shape in self.args.shapes:
            for batch in self.args.batches:
                rows, tokens = (int(n) for n in batch.split("x"))
                self.attempt(f"{shape} {batch}", lambda s=shape, r=rows, t=tokens: self.compare(s, r, t))
        if self.args.distance:
            self.attempt("distance", lambda: self.distance(self.args.distance))

    def compare(self, name: str, rows: int, tokens: int) -> None:
        """One table: every way to train, for one shape and size of batch."""
        shape = SMOKE if self.args.smoke else SHAPES[name]
        adapters = self.args.adapters
        flops = figures.count(shape, RANK, rows, tokens, ANSWERS)
        with tempfile.TemporaryDirectory() as scratch:
            base = Path(scratch)
            model = make_model(shape, self.device, base)
            data = make_data(shape, tokens)
            plan = None if rows * tokens > 1024 else adapters
            long = jobs(adapters, self.args.steps, rows, base)
            found: list[Speed | None] = [self.attempt(f"{name} PEFT eager", lambda: sequential(
                model, base, data, jobs(adapters, 5, rows, base), "PEFT, eager", 1))]
            if self.args.peft_compiled:
                found.append(self.attempt(f"{name} PEFT compiled", lambda: self.compiled_peft(
                    model, base, data, jobs(2, 9, rows, base))))
            for way in self.args.variants:
                found.append(self.attempt(f"{name} packed {way}", lambda w=way: packed(
                    model, base, data, long, f"packed, {w}", w, plan)))
                if self.args.profile and found[-1] and self.device.type == "cuda":
                    few = jobs(found[-1].together, 8, rows, base)
                    self.attempt("profile", lambda w=way, few=few: self.where(model, base, data, few, w))
            self.table(name, rows, tokens, flops, found)

    def compiled_peft(self, model: Any, base: Path, data: Any, wanted: Sequence[Any]) -> Speed:
        import torch

        from autotune.pipeline.packed.speed import compiled_layers

        try:
            with compiled_layers(model):
                return sequential(model, base, data, wanted, "PEFT, compiled", 4)
        finally:  # so that what is packed is compiled as if nothing had been before
            torch._dynamo.reset()

    def where(self, model: Any, base: Path, data: Any, wanted: Sequence[Any], way: Any) -> None:
        from autotune.pipeline.packed.engine import train_packed

        watch = figures.Watch(3, 6)
        train_packed(model, base, data, wanted, width=len(wanted), speed=way, report=watch)
        launched, kinds = watch.found()
        shares = ", ".join(f"{kind} {ms:.1f}" for kind, ms in kinds.items())
        self.note(f"GPU's work a step, packed {way}: {launched:.0f} kernels, {sum(kinds.values()):.1f} ms ({shares})")

    def table(
        self, name: str, rows: int, tokens: int, flops: figures.Flops, found: Sequence[Speed | None]
    ) -> None:
        first = found[0]
        each = flops.total / (rows * tokens)
        self.note("", f"{name}, {self.args.adapters} adapters of {rows} × {tokens} tokens; {each / 1e9:.2f} GFLOP a "
                  f"token (LoRA {100 * flops.adapter / flops.total:.0f} %, attention "
                  f"{100 * flops.attention / flops.total:.0f} %):", "",
                  "| way | together | ms a step | tokens/s | × sequential eager PEFT | TFLOP/s | of peak | peak GB |",
                  "|---|---|---|---|---|---|---|---|")
        for speed in found:
            if speed is None:
                continue
            ratio = f"{speed.tokens_s / first.tokens_s:.1f}" if first else "–"
            rate = speed.tokens_s * each
            self.note(f"| {speed.way} | {speed.together} | {1e3 * speed.seconds:.1f} | {speed.tokens_s:,.0f} | {ratio} "
                      f"| {rate / 1e12:.1f} | {100 * rate / self.limit:.1f} % | {speed.peak_gb:.1f} |")
        self.note("")

    def distance(self, name: str) -> None:
        """How far bf16 is from fp32, packed and alone."""
        from benchmarks.packed_distance import distances

        shape = SMOKE if self.args.smoke else SHAPES[name]
        with tempfile.TemporaryDirectory() as scratch:
            base = Path(scratch)
            model = make_model(shape, self.device, base)
            data = make_data(shape, 16 if self.args.smoke else 128)
            wanted = jobs(self.args.adapters, self.args.distance_steps, 2 if self.args.smoke else 8, base)
            self.note(*distances(model, base, data, wanted, self.args.variants, say))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=["llama-135m", "qwen-0.5b", "phi-3-mini"])
    parser.add_argument("--adapters", type=int, default=16)
    parser.add_argument("--batches", nargs="+", default=["8x128"])
    parser.add_argument("--variants", nargs="+", choices=["eager", "compiled", "graphed"], default=["eager"])
    parser.add_argument("--steps", type=int, default=12, help="of each packed adapter")
    parser.add_argument("--peft-compiled", action="store_true")
    parser.add_argument("--profile", action="store_true", help="count kernels and their time by kind")
    parser.add_argument("--distance", choices=SHAPES)
    parser.add_argument("--distance-steps", type=int, default=20)
    parser.add_argument("--budget", type=float, default=540.0, help="seconds after which nothing more is begun")
    parser.add_argument("--record", type=Path, help="a file for the tables, as they come")
    parser.add_argument("--results", action="store_true", help="append to RESULTS.md")
    parser.add_argument("--smoke", action="store_true", help="a tiny shape instead, to see that all runs")
    args = parser.parse_args()
    if args.smoke:
        args.shapes, args.batches, args.adapters, args.distance = ["llama-135m"], ["2x16"], 4, "llama-135m"
    return args


def main() -> None:
    args = arguments()
    run = Run(args)
    run.all()
    if args.results:
        from benchmarks.record import record

        command = "python benchmarks/packed_training.py " + " ".join(sys.argv[1:])
        record("Packed training", command, "", run.lines)


if __name__ == "__main__":
    main()
