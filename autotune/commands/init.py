"""``autotune init``: a study.yaml for a data file, guessed, asked and said."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from autotune.commands.completion import complete_data
from autotune.errors import ConfigError, Problem

if TYPE_CHECKING:
    from autotune.commands.asking import Asker
    from autotune.drafting.columns import Column
    from autotune.drafting.new_study import Decisions
    from autotune.pipeline.tokens import Task

EXIT_CODES = """Exit codes: 0 the study is written; 2 bad usage, rows that a study refuses, or a guess that needs
your word."""


def init(
    data: Annotated[Path, typer.Argument(
        help="The rows: .jsonl, .json, .csv or .parquet.", show_default=False, autocompletion=complete_data)],
    out: Annotated[Path, typer.Option(help="The study file to write.")] = Path("study.yaml"),
    model: Annotated[str | None, typer.Option(
        help="org/name, a folder, a .gguf file or package:NAME. Default: Gemma 3 270M, if its package is installed.")]
    = None,
    prompt_column: Annotated[list[str] | None, typer.Option(
        help="A column that the prompt is made of; give it again for another.", show_default=False)] = None,
    answer_column: Annotated[str | None, typer.Option(help="The column that is to be answered.")] = None,
    task: Annotated[Literal["choice", "generate"] | None, typer.Option(
        help="One of a closed set of labels, or free text.")] = None,
    valid: Annotated[Path | None, typer.Option(
        help="Rows to search on.", autocompletion=complete_data)] = None,
    test: Annotated[Path | None, typer.Option(
        help="Rows that the certificate alone asks.", autocompletion=complete_data)] = None,
    target_latency: Annotated[float | None, typer.Option(
        min=0, help="At most so many milliseconds a request, in 95 of 100.")] = None,
    max_size: Annotated[float | None, typer.Option(min=0, help="At most so many MB on disk.")] = None,
    min_accuracy: Annotated[float | None, typer.Option(
        min=0, max=1, help="At least this share of right answers.")] = None,
    name: Annotated[str | None, typer.Option(help="The study's name. Default: from the data file's.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the study file.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take every guess.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Ask nothing; print one JSON object to stdout.")] = False,
) -> None:
    """Write a commented study.yaml for a data file: guess what can be guessed, ask for the rest."""
    from autotune.commands.asking import Asker
    from autotune.drafting import new_study
    from autotune.drafting.siblings import family_of
    from autotune.drafting.study_writer import study_text

    if out.exists() and not force:
        raise ConfigError([Problem(str(out), "", "it exists already", "another --out, or --force to overwrite it")])
    asker = Asker(terminal=not as_json and sys.stdin.isatty() and sys.stdout.isatty(), trusting=yes)
    new_study.require_data(data)
    given = {split: path for split, path in (("valid", valid), ("test", test)) if path}
    family = family_of(data, data.parent.iterdir())
    files = {**family.splits, **given}
    columns = new_study.read_columns(files["train"])
    chosen, why = _decide(columns, files["train"].name, prompt_column, answer_column, task, asker)
    spec = _model(model, out.parent, asker)
    asker.finish()
    files, notes = new_study.without_strangers(files, chosen, keep=given)
    examined = new_study.examine(files, chosen)
    limits = _limits(chosen.task, min_accuracy, target_latency, max_size, asker)
    draft = new_study.draft(examined, chosen, name=name or new_study.study_name(family.stem, data.parent), model=spec,
                            base_dir=out.parent, limits=limits)
    _write(study_text(draft), out)
    found = {
        "study": str(out), "name": draft.name, "model": spec, "task": chosen.task, "files": dict(draft.files),
        "rows": dict(draft.rows), "prompt_columns": list(chosen.prompt), "answer_column": chosen.answer, "why": why,
        "unused_columns": _unused(columns, chosen), "labels": dict(draft.labels), "constraints": limits,
        "notes": [*notes, *examined.notes], "next": shlex.join(["autotune", "run", str(out), "--dry-run"]),
    }
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        _print(found)


def _decide(
    columns: Sequence[Column], file: str, prompt: Sequence[str] | None, answer: str | None,
    task: Task | None, asker: Asker,
) -> tuple[Decisions, dict[str, str]]:
    """What was said, else guessed, else asked; and why, by what was decided."""
    from autotune.commands.asking import SAID, one_of, some_of
    from autotune.drafting.guess import Guess, guess_answer, guess_prompt, guess_task
    from autotune.drafting.new_study import Decisions, require_columns, require_two

    prompt = list(dict.fromkeys(prompt or ()))
    require_columns(columns, {"--prompt-column": prompt, "--answer-column": [answer] if answer else []}, file)
    require_two(columns, file)
    rest = [c for c in columns if c.name not in prompt]
    answered = asker.settle(
        "--answer-column", f"The answer's column, one of {_listed(rest)}",
        Guess(answer, SAID, True) if answer else guess_answer(rest),
        one_of([c.name for c in rest]), str, f"one of {_listed(rest)}")
    rest = [c for c in columns if c.name != answered.value]
    prompted = asker.settle(
        "--prompt-column", f"The prompt's columns, with commas between them, of {_listed(rest)}",
        Guess(tuple(prompt), SAID, True) if prompt else guess_prompt(columns, answered.value),
        some_of([c.name for c in rest]), ",".join, f"one of {_listed(rest)}, and again for another")
    require_columns(columns, {"--prompt-column": prompted.value, "--answer-column": [answered.value]}, file)
    if answered.value in prompted.value:
        raise ConfigError([Problem("--prompt-column", "", f"{answered.value!r}, which is the answer", _listed(rest))])
    column = next(c for c in columns if c.name == answered.value)
    tasks: tuple[Task, ...] = ("choice", "generate")
    tasked = asker.settle(
        "--task", "The task, choice (of a closed set of answers) or generate",
        Guess(task, SAID, True) if task else guess_task(column),
        one_of(tasks), str, "choice or generate")
    return (Decisions(prompted.value, answered.value, tasked.value),
            {"answer": answered.why, "prompt": prompted.why, "task": tasked.why})


def _listed(columns: Sequence[Column]) -> str:
    from autotune.drafting.study_writer import printable

    return ", ".join(printable(c.name) for c in columns)


def _model(given: str | None, base_dir: Path, asker: Asker) -> str:
    from autotune.commands.asking import SAID
    from autotune.drafting.guess import Guess
    from autotune.drafting.new_study import DEFAULT_MODEL, MODELS, model_spec

    found = model_spec(given, base_dir)
    example = f"{MODELS}; for one to begin with: pip install {DEFAULT_MODEL.replace('_', '-')}"

    def parse(text: str) -> str:
        try:
            return model_spec(text, base_dir) or ""
        except ConfigError as error:
            raise ValueError(error.problems[0].found) from None

    return asker.settle("--model", f"The base model: {MODELS}", Guess(found, SAID, True) if found else None, parse,
                        str, example).value


def _limits(
    task: str, accuracy: float | None, latency: float | None, size: float | None, asker: Asker
) -> list[str]:
    if accuracy is None:
        accuracy = asker.limit("The least share of right answers, such as 0.8", most=1)
    if latency is None:
        latency = asker.limit("The most milliseconds that 95 of 100 requests may take")
    if size is None:
        size = asker.limit("The most MB on disk")
    metric = "accuracy" if task == "choice" else "exact_match"
    limits = {f"{metric} >=": accuracy, "latency_ms.p95 <=": latency, "size_mb <=": size}
    return [f"{expression} {bound:.12g}" for expression, bound in limits.items() if bound is not None]


def _write(text: str, out: Path) -> None:
    """The file, once the very check that ``autotune run`` makes has passed on it. Raises ConfigError."""
    import yaml

    from autotune.config import resolve_config
    from autotune.config_errors import UniqueKeyLoader
    from autotune.storage.store import write_atomically

    try:
        out.parent.mkdir(parents=True, exist_ok=True)  # paths with .. lead nowhere from a folder that is not there
        resolve_config(yaml.load(text, Loader=UniqueKeyLoader), str(out), out.resolve().parent)
        write_atomically(out, text)
    except OSError as error:
        raise ConfigError([Problem("--out", str(out), error.strerror or str(error), "a file that can be written")
                           ]) from None


def _unused(columns: Sequence[Column], chosen: Decisions) -> dict[str, str]:
    from autotune.drafting.guess import unused

    return {c.name: unused(c) for c in columns if c.name not in (*chosen.prompt, chosen.answer)}


def _print(found: Mapping[str, Any]) -> None:
    from autotune.drafting.study_writer import printable
    from autotune.report.wording import join

    console = Console(highlight=False, soft_wrap=True)

    def say(heading: str, text: str) -> None:
        console.print(f"  {heading:<9}{escape(printable(text))}")

    console.print(f"[bold]{escape(found['study'])}[/] is written, and checked as autotune run checks it.")
    say("rows", ", ".join(f"{n} of {found['files'][split]} ({split})" for split, n in found["rows"].items()))
    cut = [split for split in ("valid", "test") if split not in found["rows"]]
    if cut:
        say("", f"{join(cut)} will be cut from them, 15 % each")
    say("answer", f"{found['answer_column']}: {found['why']['answer']}")
    say("prompt", f"{join(found['prompt_columns'])}: {found['why']['prompt']}")
    labels = [f"{label} {share:.0%}" for label, share in found["labels"].items()]
    shown = f" of {len(labels)} labels: {', '.join(labels[:8])}{', …' * (len(labels) > 8)}"
    say("task", found["task"] + (shown if labels else f": {found['why']['task']}"))
    for column, why in found["unused_columns"].items():
        say("not used", f"{column}: {why}")
    say("model", found["model"])
    say("limits", join(found["constraints"]) if found["constraints"] else
        "none; constraints in the file shows how to set them")
    for note in found["notes"]:
        console.print(f"[yellow]note:[/] {escape(printable(note))}")
    console.print(f"Next: [bold]{escape(found['next'])}[/] says how long it takes; without --dry-run it searches.")
