"""autotune beside Microsoft Olive 0.13.0: the same 4 adapters × 4 deploy points, one after the other, on one machine.

    python benchmarks/versus_olive.py --model FOLDER [--olive defaults|tuned] [--steps 20] [--batch 8] [--eval-rows 64]

Both sides get the same Hugging Face folder, training rows, steps, batch size, learning rate and schedule, evaluation
rows and thread count, and make the same 16 artifacts; makespan is the wall time of one process from its start to its
end. Ours is ``autotune run`` with an empty store, Olive's is olive_side.py in a virtual environment of its own (made
where --olive-venv says; one that is there is used as it is), with an empty cache. Figures are printed and appended to
RESULTS.md beside this file.

What the recipe does not fix is Olive's own affair, and --olive says whose hand is on it:

- ``defaults``, as its users run it: gradient checkpointing on (the LoRA pass's default), ModelBuilder's settings as the
  pass leaves them (so logits of every position), and its evaluator of language models, LMEvaluator, with the settings
  of ``olive benchmark`` (lm-eval, one request after the other, at most 1024 tokens) on our rows as an lm-eval task of
  multiple choice; the input model is evaluated first. Different from its defaults, because it would not survive
  otherwise or would not do the same work, and each in its favour: training in fp32 (its default, bf16, is slower by
  far on processors without bf16 arithmetic), one row a sequence without padding (its default joins rows to sequences
  of 1024 tokens), BOS written into the texts (LMEvaluator and the data pass leave it out), and its passes in
  the order in which each adapter is trained and merged once.
- ``tuned``, as one who knows it well would: no gradient checkpointing, logits of the last prompt token alone, and an
  evaluator written for this comparison that reads prompts tokenized once and decodes greedily within the labels.

In both no latency or memory is measured (ours measures both), and the loss is over the whole text, as Olive's text data
gives it; ours is over the answer. --olive-loss answer gives a tuned Olive a data component that leaves the prompt out
of its loss too, which takes code of the user's: no setting does.

What Olive needs to finish the grid, all done here:

- one line of olive/engine/footprint.py, replaced while it runs (``FootprintNode.update``, line 62): from
  ``setattr(self, k, v)`` to ``setattr(self, "model_config_data" if k == "model_config" else k, v)``. Without it every
  trial that shares an adapter with an earlier one fails, and the run still exits 0. --no-repair shows that.
- transformers below 5, which cannot read a folder that 5 wrote: Olive is given a folder whose configuration is
  translated and whose weights are links.
- its telemetry switched off by CI=1, because OLIVE_DISABLE_TELEMETRY=1 is looked at after the first message is queued.

The full run asks for some 30 GB of disk under --work (15 with --empty-artifacts) and, on Olive's side, for 14 GB of
memory.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autotune.run_folder import environment
from benchmarks.grid import (
    ADAPTERS,
    ANSWER,
    LABELS,
    LEARNING_RATE,
    POINTS,
    PROMPT,
    TONE,
    Side,
    Trial,
    run_ours,
    run_timed,
    say,
    stage_sums,
    write_rows,
)
from benchmarks.olive_environment import olive_python, process_environment, translate_model, versions
from benchmarks.olive_side import LISTING
from benchmarks.record import SHOWN

HERE = Path(__file__).resolve().parent


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
        "way": args.olive, "loss": args.olive_loss, "repair": not args.no_repair,
        "empty": args.empty_artifacts,
    }
    (folder / "job.json").write_text(json.dumps(job, indent=1), encoding="utf-8")
    env = process_environment(folder, args.threads)
    command = [str(python), str(HERE / "olive_side.py"), str(folder / "job.json")]
    say(began, f"Olive, {args.olive}: {args.adapters} adapters × {args.points} deploy points; log in {folder / 'log'}")
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
            continue  # a pass, or the evaluation of the input model
        build = made[event["id"]]
        lora = made[made[build["parent"]]["parent"]]["settings"]
        label = next(p for p in points if POINTS[p][1].items() <= build["settings"].items())
        found[lora["r"], float(lora["alpha"]), label] = event["accuracy"]
    return found


def olive_stages(events: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Stages that were not taken from Olive's cache; of the listings, those within an artifact's evaluation."""
    listed = 0.0
    for event in events:
        if event["stage"] == LISTING:
            listed = event["seconds"]
            continue
        if event["stage"] == "evaluate" and listed:
            yield LISTING, listed
        listed = 0.0
        if not event.get("cached"):
            yield event["stage"], event["seconds"]


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
    for name, side in ((f"Olive, {args.olive}", olive), ("autotune", ours)):
        if side:
            stages = ", ".join(f"{stage} {s:.1f} (×{side.counts[stage]})" for stage, s in side.seconds.items())
            lines.append(f"| {name} | {len(side.accuracy)} | {side.exit_code} | {side.makespan:.1f} | "
                         f"{side.peak_mb:.0f} | {stages} |")
    whole = args.adapters * args.points
    if olive and ours and len(olive.accuracy) == len(ours.accuracy) == whole:
        lines += ["", f"Makespan of Olive ÷ makespan of autotune: {olive.makespan / ours.makespan:.2f}."]
        lines += apart(olive, ours)
    elif olive and ours:
        lines += ["", f"No ratio of makespans: not every one of the {whole} trials was made by both."]
    return lines


def apart(olive: Side, ours: Side) -> list[str]:
    """The quotient without what an Olive with other settings would not do."""
    listing, base = olive.seconds.get(LISTING, 0.0), olive.seconds.get("evaluate input", 0.0)
    if not listing + base:
        return []
    left = olive.makespan - listing - base
    return [f"Of Olive's makespan the evaluation of the input model is {base:.0f} s, and {listing:.0f} s are "
            "LMEvaluator listing lm-eval's tasks anew for each artifact; without both the quotient is "
            f"{left / ours.makespan:.2f}."]


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
    parser.add_argument("--olive", choices=("defaults", "tuned"), default="defaults", help="see above")
    parser.add_argument("--olive-loss", choices=("text", "answer"), default="text")
    parser.add_argument("--no-repair", action="store_true", help="Olive as it is published")
    parser.add_argument("--empty-artifacts", action="store_true",
                        help="drop the weights of Olive's artifacts once evaluated: 15 GB of disk in place of 30")
    parser.add_argument("--skip-olive", action="store_true")
    parser.add_argument("--skip-ours", action="store_true")
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of tables")
    args = parser.parse_args()
    if args.olive_loss == "answer" and args.olive == "defaults":
        parser.error("--olive-loss answer is no default of Olive's; it goes with --olive tuned")
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
               f"{args.points} --threads {args.threads} --olive {args.olive}"
               f"{' --olive-loss answer' * (args.olive_loss == 'answer')}{' --no-repair' * args.no_repair}"
               f"{' --empty-artifacts' * args.empty_artifacts}")
    text = "\n".join([f"\n## Beside Olive: `{command}`\n", f"{about['cpu']}, {about['cores']} cores, "
                      f"{about['memory_gb']} GB. autotune: {own}. Olive: {its}. One run each, one after the other.\n",
                      *lines, ""])
    with (HERE / "RESULTS.md").open("a", encoding="utf-8") as file:
        file.write(text)


def as_json(side: Side) -> dict[str, Any]:
    trials = [{"rank": r, "alpha": a, "deploy_point": p, "accuracy": v} for (r, a, p), v in side.accuracy.items()]
    return {**asdict(side), "accuracy": trials}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the side that runs is ended too
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
