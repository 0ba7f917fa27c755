"""Size, build time and agreement of every precision's artifact, on one model.

    python benchmarks/artifacts.py MODEL_FOLDER [--threads 2] [--context 1024]

Each deploy point is built once in a process of its own and asked the next token of the same prompts as the fp32
artifact; the figures are printed and appended to RESULTS.md beside this file.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from pathlib import Path

import numpy as np

from autotune.pipeline.assemble import ArtifactInfo, assemble
from autotune.run_folder import environment
from autotune.workers import Worker
from objectives.session import ids_array, new_generator, open_model
from search_spaces.deploy import DeployParams

POINTS = (
    DeployParams("fp32"), DeployParams("fp16"), DeployParams("int8"), DeployParams("int8", symmetric=False),
    DeployParams("int4"), DeployParams("int4", symmetric=False), DeployParams("int4", algorithm="rtn"),
    DeployParams("int4", algorithm="k_quant"), DeployParams("int4", int8_where="head"),
    DeployParams("int4", block_size=128),
)
PROMPTS = (
    "The weather this morning was", "She opened the letter and", "In order to install the package you",
    "Once upon a time there", "The capital of France is", "He shouted so loudly that",
)


def next_logits(info: ArtifactInfo, prompts: list[list[int]], threads: int) -> np.ndarray:
    """Logits [prompt, vocab] of the next token."""
    model = open_model(info.path, "cpu", {}, threads)
    rows = []
    for prompt in prompts:
        generator = new_generator(model, max(info.min_generator_length, len(prompt) + 1))
        generator.append_tokens(ids_array(prompt))
        rows.append(np.array(generator.get_logits()).reshape(-1, generator.get_logits().shape[-1])[-1])
    return np.stack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=1024)
    args = parser.parse_args()

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    lines = ["| artifact | MB | build s | max abs logit difference to fp32 | same top token |", "|---|---|---|---|---|"]
    reference: np.ndarray | None = None
    with tempfile.TemporaryDirectory() as scratch:
        for point in POINTS:
            worker = Worker(Path(scratch) / "worker.log")
            worker.run(platform.node)  # the process is up before the clock starts
            info = worker.run(assemble, args.model, Path(scratch) / point.label, point, "cpu", args.context)
            logits = worker.run(next_logits, info, prompts, args.threads)
            worker.close()
            reference = logits if reference is None else reference
            delta = float(np.abs(logits - reference).max())
            same = int((logits.argmax(1) == reference.argmax(1)).sum())
            lines.append(f"| {point.label} | {info.size_bytes / 1e6:.1f} | {info.seconds:.1f} | {delta:.3g} | "
                         f"{same} of {len(prompts)} |")
            print(lines[-1], flush=True)
    about = environment()
    versions = ", ".join(f"{k} {about['libraries'][k]}" for k in ("onnxruntime", "onnxruntime-genai", "torch"))
    command = f"python benchmarks/artifacts.py {args.model.name} --threads {args.threads} --context {args.context}"
    text = "\n".join([f"\n## Artifacts: `{command}`\n", f"{about['cpu']}, {about['cores']} cores, {versions}; "
                      "one reading each, import time of the libraries included in the build.\n", *lines, ""])
    with (Path(__file__).parent / "RESULTS.md").open("a", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
