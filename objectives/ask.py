"""Answers one prompt with a bundle's model: what its run.py does. Needs numpy and onnxruntime-genai."""

from __future__ import annotations

import argparse
import difflib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from objectives import bundle, integrity
from objectives.bundle import Bundle
from objectives.templates import render, template_columns

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def main(folder: Path, argv: Sequence[str]) -> int:
    """Print the answer; returns the exit code: 0, 1 for a bundle or model that cannot be used, 2 for bad usage."""
    try:
        opened = bundle.parsed(folder, integrity.read(folder))
    except ValueError as error:
        return _failed(str(error))
    parser, columns = _parser(opened), template_columns(opened.task.prompt)
    asked = parser.parse_args(argv)
    text = render(opened.task.prompt, _values(parser, columns, asked.text, asked.column))
    try:
        answer, tokens = _answer(opened, text)
    except ImportError as error:
        print(f"{error}; install what requirements.txt beside run.py lists", file=sys.stderr)
        return EXIT_USAGE
    except OverflowError as error:
        parser.error(str(error))
    except Exception as error:  # noqa: BLE001 - whatever the runtime raises, its user gets a sentence
        return _failed(f"the model cannot answer: {error}")
    print(json.dumps({"answer": answer, "prompt_tokens": tokens}, ensure_ascii=False) if asked.json else answer)
    return EXIT_OK


def _parser(opened: Bundle) -> argparse.ArgumentParser:
    columns = template_columns(opened.task.prompt)
    parser = argparse.ArgumentParser(
        prog="run.py", description=f"Answers with {opened.name}.",
        epilog="The text fills the prompt that the model was trained on"
        + (f"; the answer is one of: {', '.join(opened.task.labels)}." if opened.task.labels else "."))
    one, names = len(columns) == 1, ", ".join(columns).replace("%", "%%")
    parser.add_argument("text", nargs="?", help=f"the {names}" if one else argparse.SUPPRESS)
    parser.add_argument("--column", action="append", default=[], metavar="NAME=VALUE",
                        help=f"the value of a column: {names}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _values(
    parser: argparse.ArgumentParser, columns: Sequence[str], text: str | None, given: Sequence[str]
) -> Mapping[str, str]:
    """The value of every column, or a usage error that names all that is wrong."""
    values: dict[str, str] = {}
    problems = []
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or name not in columns:
            close = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
            hint = f", did you mean {close[0]!r}?" if equals and close else ""
            problems.append(f"--column {pair!r} names no column{hint}" if equals else f"--column {pair!r} has no =")
        values[name] = value
    if text is not None:
        if len(columns) == 1 and not given:
            values = {columns[0]: text}
        else:
            problems.append(f"found the plain text {text!r}")
    missing = [name for name in columns if name not in values]
    if missing and not problems:
        problems.append(f"no value for {', '.join(missing)}")
    if not problems and not any(value.strip() for value in values.values()):
        problems.append("no text to answer")
    if problems:
        each = " ".join(f"--column {shlex.quote(f'{name}=VALUE')}" for name in columns)
        parser.error(f"{'; '.join(problems)}; accepted: {'a text' if len(columns) == 1 else each}")
    return values


def _answer(opened: Bundle, text: str) -> tuple[str, int]:
    """The answer and how many tokens the prompt has. Raises OverflowError where it is too long for the model."""
    from objectives.accuracy import build_trie, choose, depth, generate
    from objectives.session import context_length, min_generator_length, open_model, tokenizer
    from objectives.texts import encode

    task, folder = opened.task, opened.model
    model = open_model(folder, opened.provider, opened.provider_options, opened.threads)
    encoder, least = tokenizer(model), min_generator_length(folder)
    (prompt,) = encode(encoder, folder, [text], chat=task.chat)
    trie = build_trie(task.label_ids, task.eos_id) if task.kind == "choice" else None
    room = context_length(folder) - (depth(trie) if trie else task.max_new_tokens)
    if len(prompt) > room:
        raise OverflowError(f"the prompt has {len(prompt)} tokens; accepted: at most {room}")
    if trie:
        return task.labels[choose(model, prompt, trie, least)], len(prompt)
    found = generate(model, encoder, prompt, task.max_new_tokens, stop_ids=frozenset({task.eos_id}),
                     stop_strings=task.stop, min_generator_length=least)
    return found.text, len(prompt)


def _failed(reason: str) -> int:
    print(f"failed: {reason}", file=sys.stderr)
    return EXIT_FAILED
