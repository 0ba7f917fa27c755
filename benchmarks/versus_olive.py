"""autotune beside Microsoft Olive 0.13.0: the same 4 adapters × 4 deploy points, one after the other, on one machine.

    python benchmarks/versus_olive.py --model FOLDER [--steps 20] [--batch 8] [--eval-rows 64] [--olive-venv DIR]

Both sides get the same Hugging Face folder, training rows, steps, batch size, learning rate and schedule, evaluation
rows and thread count, and make the same 16 artifacts; makespan is the wall time of one process from its start to its
end. Ours is ``autotune run`` with an empty store, Olive's is olive_side.py in a virtual environment of its own (made
where --olive-venv says; one that is there is used as it is), with an empty cache. Figures are printed and appended to
RESULTS.md beside this file.

What Olive needs to finish the grid, all done here:

- one line of olive/engine/footprint.py, replaced while it runs (``FootprintNode.update``, line 62): from
  ``setattr(self, k, v)`` to ``setattr(self, "model_config_data" if k == "model_config" else k, v)``. Without it every
  trial that shares an adapter with an earlier one fails, and the run still exits 0. --no-repair shows that.
- transformers below 5, which cannot read a folder that 5 wrote: Olive is given a folder whose configuration is
  translated and whose weights are links.
- its telemetry switched off by CI=1, because OLIVE_DISABLE_TELEMETRY=1 is looked at after the first message is queued.

In Olive's favour: fp32 training (bf16 is its default), rows not padded to a fixed length, no gradient checkpointing
(its default; --olive-checkpointing leaves it on), logits of the last prompt token only, prompts tokenized once and with
BOS (which the artifact's tokenizer leaves out for Gemma), no latency or memory measured (ours measures both), and the
search order in which each adapter is trained and merged once. Its loss is over the whole text, as its text data gives
it; ours is over the answer. --olive-loss answer gives Olive a data component that leaves the prompt out of its loss
too, which takes code of the user's: no setting does.

The full run asks for some 30 GB of disk under --work and, on Olive's side, for 14 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from autotune.run_folder import environment

HERE = Path(__file__).resolve().parent
TONE = HERE.parent / "examples" / "tone"
OLIVE = ("olive-ai==0.13.0", "transformers<5", "onnxruntime-genai==0.14.1", "torch>=2.9,<2.14", "peft>=0.21,<0.22",
         "accelerate>=1.15,<2", "datasets>=5,<6", "optuna>=5,<6", "psutil>=7.2,<8")
SHOWN = ("torch", "transformers", "peft", "onnxruntime", "onnxruntime-genai")
PROMPT, ANSWER = "### Text: {phrase}\n### The tone is:\n", "{tone}"
LABELS = ("joy", "sadness", "fear", "surprise")
LEARNING_RATE = 5e-4
#: (rank, alpha), in an order of which every beginning of 1, 2 or 4 is a full grid.
ADAPTERS = ((8, 16), (16, 16), (8, 32), (16, 32))
#: Our label → our deploy point, Olive's settings of its ModelBuilder pass. (No int8: that builder has none.)
POINTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fp32": ({"precision": "fp32"}, {"precision": "fp32", "int4_block_size": 32, "int4_algo_config": "default"}),
    "int4-b32": ({"precision": "int4", "block_size": 32},
                 {"precision": "int4", "int4_block_size": 32, "int4_algo_config": "default"}),
    "int4-b128": ({"precision": "int4", "block_size": 128},
                  {"precision": "int4", "int4_block_size": 128, "int4_algo_config": "default"}),
    "int4-rtn-b32-int8head": ({"precision": "int4", "block_size": 32, "algorithm": "rtn", "int8_where": "head"},
                              {"precision": "int4", "int4_block_size": 32, "int4_algo_config": "rtn_last"}),
}
Trial = tuple[int, float, str]


@dataclass(frozen=True)
class Side:
    """What one tool came to. ``seconds`` are sums by stage; ``peak_mb`` is the largest process's."""

    makespan: float
    exit_code: int
    peak_mb: float
    accuracy: dict[Trial, float]
    seconds: dict[str, float]
    counts: dict[str, int]


def say(began: float, text: str) -> None:
    print(f"[{time.monotonic() - began:7.1f} s] {text}", file=sys.stderr, flush=True)


def run_timed(command: list[str], log: Path, env: dict[str, str], cwd: Path) -> tuple[float, int, float]:
    """Wall seconds, exit code and peak MB (of the largest process of the tree) of one command; output to ``log``."""
    with log.open("w", encoding="utf-8") as file:
        began = time.monotonic()
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env, cwd=cwd)
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.terminate()
            raise
        child.returncode = os.waitstatus_to_exitcode(status)
    return time.monotonic() - began, child.returncode, usage.ru_maxrss / 1024


def write_rows(files: list[Path], folder: Path, train: int, evaluate: int) -> None:
    """The first rows to train.jsonl, the last ones to valid.jsonl; exits when none would be left between them.

    Of those, some go to test.jsonl: a study without that file would cut its test rows from the training rows.
    """
    rows = [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if train + evaluate + 1 > len(rows):
        sys.exit(f"{len(rows)} rows in {', '.join(map(str, files))}: fewer than {train} + {evaluate} + 1")
    parts = {"train": rows[:train], "valid": rows[-evaluate:], "test": rows[train:-evaluate][:evaluate]}
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(part) + "\n", encoding="utf-8")


def translate_model(model: Path, folder: Path) -> Path:
    """A folder that transformers 4 reads: RoPE parameters at the top of config.json, a tokenizer class it knows."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    rope = config.pop("rope_parameters", None) or {}
    whole = rope.get("full_attention", rope)
    if whole:
        config["rope_theta"] = whole["rope_theta"]
        rest = {k: v for k, v in whole.items() if k != "rope_theta"}
        config["rope_scaling"] = rest if rest.get("rope_type", "default") != "default" else None
    if "sliding_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    config["torch_dtype"] = config.pop("dtype", config.get("torch_dtype", "float32"))
    replace(folder / "config.json", config)
    tokenizer = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    if tokenizer.get("tokenizer_class") == "TokenizersBackend":
        tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    replace(folder / "tokenizer_config.json", tokenizer)
    return folder


def replace(link: Path, content: dict[str, Any]) -> None:
    link.unlink(missing_ok=True)
    link.write_text(json.dumps(content, indent=1), encoding="utf-8")


def olive_python(venv: Path, began: float) -> Path:
    """The interpreter of Olive's environment, made first where it is missing or was left unfinished."""
    python = venv / "bin" / "python"
    if not python.exists():
        say(began, f"making Olive's environment in {venv}")
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    if not versions(python):
        say(began, f"installing {', '.join(OLIVE)}")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *OLIVE], check=True)
    return python


def versions(python: Path) -> dict[str, str]:
    """What is installed beside this interpreter; nothing when one is missing."""
    names = ["olive-ai", *SHOWN]
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {names}}}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {}


def run_olive(args: argparse.Namespace, work: Path, python: Path, began: float) -> Side:
    folder = work / "olive"
    folder.mkdir()
    events = folder / "events.jsonl"
    events.touch()
    points = list(POINTS)[: args.points]
    job = {
        "model": str(translate_model(args.model, folder / "model")), "folder": str(folder), "events": str(events),
        "train": str(work / "train.jsonl"), "valid": str(work / "valid.jsonl"), "prompt": PROMPT, "answer": ANSWER,
        "labels": LABELS, "adapters": ADAPTERS[: args.adapters], "points": [POINTS[p][1] for p in points],
        "steps": args.steps, "batch": args.batch, "learning_rate": LEARNING_RATE, "threads": args.threads,
        "loss": args.olive_loss, "checkpointing": args.olive_checkpointing, "repair": not args.no_repair,
    }
    (folder / "job.json").write_text(json.dumps(job, indent=1), encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env |= {
        "CI": "1", "OLIVE_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": str(args.threads),
        "TOKENIZERS_PARALLELISM": "false", "OLIVE_TELEMETRY_CACHE_DIR": str(folder / "telemetry"),
    }
    command = [str(python), str(HERE / "olive_side.py"), str(folder / "job.json")]
    say(began, f"Olive: {args.adapters} adapters × {args.points} deploy points; log in {folder / 'log'}")
    makespan, code, peak = run_timed(command, folder / "log", env, folder)
    lines = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    side = Side(makespan, code, peak, olive_accuracy(lines, points), *stage_sums(olive_stages(lines)))
    say(began, f"Olive ended with exit code {code} after {makespan:.1f} s: {len(side.accuracy)} trials")
    return side


def olive_accuracy(events: list[dict[str, Any]], points: list[str]) -> dict[Trial, float]:
    """Trial → accuracy, by following each evaluated model back through the passes that made it."""
    made = {e["id"]: e for e in events if e["stage"] in ("lora", "merge", "build") and not e["failed"]}
    found: dict[Trial, float] = {}
    for event in events:
        if event["stage"] != "evaluate":
            continue
        build = made[event["id"]]
        lora = made[made[build["parent"]]["parent"]]["settings"]
        label = next(p for p in points if POINTS[p][1].items() <= build["settings"].items())
        found[lora["r"], float(lora["alpha"]), label] = event["accuracy"]
    return found


def olive_stages(events: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    return ((e["stage"], e["seconds"]) for e in events if not e.get("cached"))


def our_stages(events: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    return ((e["stage"], e["seconds"]) for e in events if e["event"] == "stage_end" and not e["cached"])


def stage_sums(stages: Iterator[tuple[str, float]]) -> tuple[dict[str, float], dict[str, int]]:
    seconds: dict[str, float] = {}
    counts: dict[str, int] = {}
    for stage, spent in stages:
        seconds[stage] = seconds.get(stage, 0.0) + spent
        counts[stage] = counts.get(stage, 0) + 1
    return seconds, counts


def study(args: argparse.Namespace) -> dict[str, Any]:
    adapters, points = ADAPTERS[: args.adapters], list(POINTS)[: args.points]
    return {
        "name": "versus-olive", "model": str(args.model),
        "data": {"train": "train.jsonl", "valid": "valid.jsonl", "test": "test.jsonl", "prompt": PROMPT,
                 "answer": ANSWER, "task": "choice", "labels": list(LABELS)},
        "target": {"provider": "cpu", "threads": args.threads, "workload": {"prompt_tokens": 64, "new_tokens": 8},
                   "context_length": 1024},
        "space": {
            "adapter": {"rank": sorted({r for r, _ in adapters}), "alpha": sorted({a for _, a in adapters}),
                        "learning_rate": LEARNING_RATE, "targets": "all-linear", "steps": args.steps,
                        "batch_size": args.batch},
            "deploy": [POINTS[p][0] for p in points],
        },
        "objectives": ["accuracy", "latency_ms.p50", "size_mb"],
        "budget": {"adapters": args.adapters},
        "training": {"threads": args.threads},
        "early_stop_error": 0,  # every trial is asked all rows, as Olive's are
        "certificate": {"finalists": 0},
    }


def run_ours(args: argparse.Namespace, work: Path, began: float) -> Side:
    (work / "study.yaml").write_text(yaml.safe_dump(study(args), sort_keys=False), encoding="utf-8")
    out = work / "ours"
    command = [sys.executable, "-m", "autotune", "run", "study.yaml", "--out", str(out), "--store", str(work / "store")]
    say(began, f"autotune: {args.adapters} adapters × {args.points} deploy points; log in {work / 'ours.log'}")
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    makespan, code, peak = run_timed(command, work / "ours.log", env, work)
    accuracy: dict[Trial, float] = {}
    if (out / "results.json").exists():
        for trial in json.loads((out / "results.json").read_text(encoding="utf-8"))["trials"]:
            if trial["state"] == "COMPLETE":
                params = trial["params"]
                key = params["rank"], float(params["alpha"]), trial["deploy_point"]
                accuracy[key] = trial["values"]["accuracy"]["value"]
    log = out / "events.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    side = Side(makespan, code, peak, accuracy, *stage_sums(our_stages(lines)))
    say(began, f"autotune ended with exit code {code} after {makespan:.1f} s: {len(accuracy)} trials")
    return side


def tables(args: argparse.Namespace, olive: Side | None, ours: Side | None) -> list[str]:
    """Trials, then seconds by stage, then makespans, as Markdown."""
    lines = ["| rank | alpha | deploy point | Olive accuracy | autotune accuracy |", "|---|---|---|---|---|"]
    for rank, alpha in ADAPTERS[: args.adapters]:
        for label in list(POINTS)[: args.points]:
            shown = [f"{side.accuracy[rank, alpha, label]:.3f}" if side and (rank, alpha, label) in side.accuracy
                     else "–" for side in (olive, ours)]
            lines.append(f"| {rank} | {alpha} | {label} | {shown[0]} | {shown[1]} |")
    lines += ["", "| | trials | exit code | makespan s | largest process MB | seconds by stage (× times) |",
              "|---|---|---|---|---|---|"]
    for name, side in (("Olive", olive), ("autotune", ours)):
        if side:
            stages = ", ".join(f"{stage} {s:.1f} (×{side.counts[stage]})" for stage, s in side.seconds.items())
            lines.append(f"| {name} | {len(side.accuracy)} | {side.exit_code} | {side.makespan:.1f} | "
                         f"{side.peak_mb:.0f} | {stages} |")
    whole = args.adapters * args.points
    if olive and ours and len(olive.accuracy) == len(ours.accuracy) == whole:
        lines += ["", f"Makespan of Olive ÷ makespan of autotune: {olive.makespan / ours.makespan:.2f}."]
    elif olive and ours:
        lines += ["", f"No ratio of makespans: not every one of the {whole} trials was made by both."]
    return lines


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
    parser.add_argument("--work", type=Path, help="an empty or new folder, kept; default: a temporary one")
    parser.add_argument("--olive-venv", type=Path, default=Path.home() / ".cache" / "autotune-olive-venv")
    parser.add_argument("--olive-loss", choices=("text", "answer"), default="text")
    parser.add_argument("--olive-checkpointing", action="store_true", help="gradient checkpointing, Olive's default")
    parser.add_argument("--no-repair", action="store_true", help="Olive as it is published")
    parser.add_argument("--skip-olive", action="store_true")
    parser.add_argument("--skip-ours", action="store_true")
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of tables")
    args = parser.parse_args()
    args.model = args.model.resolve()
    args.train_rows = args.train_rows or args.steps * args.batch
    return args


def compare(args: argparse.Namespace, work: Path) -> None:
    began = time.monotonic()
    write_rows(args.rows, work, args.train_rows, args.eval_rows)
    python = None if args.skip_olive else olive_python(args.olive_venv.absolute(), began)
    olive = run_olive(args, work, python, began) if python else None
    ours = None if args.skip_ours else run_ours(args, work, began)
    about = environment()
    lines = tables(args, olive, ours)
    if args.json:
        print(json.dumps({name: as_json(side) for name, side in (("olive", olive), ("autotune", ours)) if side}))
    else:
        print("\n".join(lines))
    if args.no_record:
        return
    own = ", ".join(f"{name} {about['libraries'][name]}" for name in SHOWN)
    its = ", ".join(f"{name} {version}" for name, version in versions(python).items()) if python else "not run"
    command = (f"python benchmarks/versus_olive.py --model {args.model.name} --train-rows {args.train_rows} --steps "
               f"{args.steps} --batch {args.batch} --eval-rows {args.eval_rows} --adapters {args.adapters} --points "
               f"{args.points} --threads {args.threads} --olive-loss {args.olive_loss}"
               f"{' --olive-checkpointing' * args.olive_checkpointing}{' --no-repair' * args.no_repair}")
    text = "\n".join([f"\n## Beside Olive: `{command}`\n", f"{about['cpu']}, {about['cores']} cores, "
                      f"{about['memory_gb']} GB. autotune: {own}. Olive: {its}. One run each, one after the other.\n",
                      *lines, ""])
    with (HERE / "RESULTS.md").open("a", encoding="utf-8") as file:
        file.write(text)


def as_json(side: Side) -> dict[str, Any]:
    trials = [{"rank": r, "alpha": a, "deploy_point": p, "accuracy": v} for (r, a, p), v in side.accuracy.items()]
    return {**asdict(side), "accuracy": trials}


def main() -> None:
    args = options()
    if args.work is None:
        with tempfile.TemporaryDirectory(prefix="versus-olive-") as scratch:
            compare(args, Path(scratch))
        return
    if args.work.exists() and any(args.work.iterdir()):
        sys.exit(f"--work {args.work} is not empty: both sides must begin with nothing made")
    args.work.mkdir(parents=True, exist_ok=True)
    compare(args, args.work.resolve())


if __name__ == "__main__":
    main()
