"""Rows → token ids, once: the front door of the data, and what happens behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune.errors import DataError, Problem
from autotune.pipeline.data import Row, raise_problems, scan_rows
from autotune.pipeline.labels import choose_labels
from autotune.pipeline.progress import Report, silent
from autotune.pipeline.splits import cut_splits, duplicates_across
from autotune.pipeline.tokenizer import (
    chat_encoder,
    encode_bare,
    end_of_answer,
    load_tokenizer,
    prompt_encoder,
)
from autotune.pipeline.tokens import Example, Task, TokenizedData
from objectives.templates import render, template_columns

_CHUNK = 1000


def tokenize(
    model_dir: Path,
    splits: Mapping[str, Sequence[Row]],
    *,
    prompt: str,
    answer: str,
    chat: bool,
    task: Task,
    labels: Sequence[str] | None,
    max_tokens: int,
    report: Report = silent,
) -> TokenizedData:
    """Render and encode every row of train, valid and test.

    Prompt and answer are encoded apart, so that the ids of an answer do not depend on its prompt. The
    prompt has the tokenizer's special tokens (BOS where the model wants one); with ``chat`` it is one
    user message in the tokenizer's chat template, up to where the assistant begins. The answer ends
    with the end-of-sequence token (with ``chat``, the template's end of turn). ``max_tokens`` bounds
    prompt and answer together.

    Raises:
        DataError: answers that are no label, over-long rows, empty prompts or answers, labels that the
            tokenizer cannot tell apart; with every bad row, by file and line.
        BaseModelError: ``chat`` without a chat template, no end-of-sequence token, no usable tokenizer.
    """
    tokenizer = load_tokenizer(model_dir)
    encode_prompt = chat_encoder(tokenizer, model_dir) if chat else prompt_encoder(tokenizer)
    eos_id = end_of_answer(tokenizer, model_dir, chat=chat)
    prompts = {name: [render(prompt, row.values) for row in rows] for name, rows in splits.items()}
    answers = {name: [render(answer, row.values) for row in rows] for name, rows in splits.items()}

    problems: list[Problem] = []
    chosen: tuple[str, ...] = ()
    label_ids: tuple[tuple[int, ...], ...] = ()
    if task == "choice":
        chosen, problems = choose_labels(labels, splits, answers)
        label_ids, bad_labels = _label_ids(tokenizer, chosen, eos_id)
        problems = bad_labels + problems

    total = sum(len(rows) for rows in splits.values())
    done = 0
    examples: dict[str, list[Example]] = {name: [] for name in splits}
    for name, rows in splits.items():
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            texts = prompts[name][part], answers[name][part]
            ids = encode_prompt(texts[0]), encode_bare(tokenizer, texts[1])
            for row, *text, prompt_ids, answer_ids in zip(rows[part], *texts, *ids, strict=True):
                example = Example(tuple(prompt_ids), (*answer_ids, eos_id), *text)
                bad = _row_problem(row, example, max_tokens)
                if bad is not None:
                    problems.append(bad)
                examples[name].append(example)
            done = min(total, done + len(rows[part]))
            report(done, total, f"{done} of {total} rows tokenized")
    raise_problems(problems)
    whole = {name: tuple(members) for name, members in examples.items()}
    parts = (whole.get("train", ()), whole.get("valid", ()), whole.get("test", ()))
    return TokenizedData(task, chat, eos_id, *parts, chosen, label_ids)


def _row_problem(row: Row, example: Example, most: int) -> Problem | None:
    prompt, answer = len(example.prompt), len(example.answer)
    if not example.prompt_text.strip() or not prompt:
        return Problem(row.file, row.where, "an empty prompt", "a prompt with some text")
    if not example.answer_text.strip() or answer < 2:
        return Problem(row.file, row.where, "an empty answer", "an answer with some text")
    if example.answer[-1] in example.answer[:-1]:
        found = "the end-of-sequence token inside the answer"
        return Problem(row.file, row.where, found, "an answer without it")
    if prompt + answer > most:
        found = f"{prompt + answer} tokens (prompt {prompt}, answer {answer})"
        return Problem(row.file, row.where, found, f"at most {most} tokens")
    return None


def _label_ids(
    tokenizer: Any, labels: Sequence[str], eos_id: int
) -> tuple[tuple[tuple[int, ...], ...], list[Problem]]:
    """Each label's ids without the end of sequence, and a problem for each label that these cannot name."""
    encoded = [tuple(ids) for ids in encode_bare(tokenizer, labels)]
    problems = []
    seen: dict[tuple[int, ...], str] = {}
    for label, ids in zip(labels, encoded, strict=True):
        if not ids or eos_id in ids:
            found = f"{label!r} has no tokens" if not ids else f"{label!r} contains the end-of-sequence token"
            problems.append(Problem("labels", "", found, "labels of at least one ordinary token"))
        elif ids in seen:
            found = f"{seen[ids]!r} and {label!r} have the same tokens"
            problems.append(Problem("labels", "", found, "labels that the tokenizer tells apart"))
        seen.setdefault(ids, label)
    return tuple(encoded), problems


def load_data(
    model_dir: Path,
    *,
    base_dir: Path,
    train: str,
    valid: str | None,
    test: str | None,
    prompt: str,
    answer: str,
    chat: bool,
    task: Task,
    labels: Sequence[str] | None,
    max_tokens: int,
    report: Report = silent,
) -> tuple[TokenizedData, list[str]]:
    """Read, check, split and tokenize; returns the data and warnings, each a sentence.

    A split that is None is cut from train by a hash of the prompt. Where a prompt has several columns,
    a row may leave some of them blank, not all. Arguments otherwise as in ``tokenize``.

    Raises:
        DataError: bad rows of all given files together, then those that only the tokenizer can tell.
        BaseModelError: the tokenizer does not serve the task.
    """
    prompt_columns = _columns("prompt", prompt)
    answer_columns = _columns("answer", answer)
    columns = list(dict.fromkeys([*prompt_columns, *answer_columns]))
    optional = set(prompt_columns) - set(answer_columns) if len(prompt_columns) > 1 else set()
    sources = {"train": train, "valid": valid, "test": test}
    rows: dict[str, list[Row]] = {}
    problems: list[Problem] = []
    for name, source in sources.items():
        if source is None:
            continue
        try:
            rows[name], found = scan_rows(source, base_dir, name, columns, optional)
        except DataError as error:
            found = list(error.problems)
        problems += found
        problems += blank_prompts(rows.get(name, []), prompt_columns) if optional else []
    raise_problems(problems)

    prompts = {name: [render(prompt, row.values) for row in members] for name, members in rows.items()}
    warnings = duplicates_across(rows, prompts)
    rows = {**rows, **cut_splits(rows["train"], prompts["train"], have=rows.keys())}
    data = tokenize(
        model_dir, rows, prompt=prompt, answer=answer, chat=chat, task=task, labels=labels,
        max_tokens=max_tokens, report=report,
    )  # fmt: skip
    trained = {example.answer_text for example in data.train}
    warnings += [f"no training row has the label {label!r}" for label in data.labels if label not in trained]
    return data, warnings


def _columns(field: str, template: str) -> list[str]:
    try:
        columns = template_columns(template)
    except ValueError as error:
        found, _, accepted = str(error).partition("; accepted: ")
        raise DataError([Problem(f"data.{field}", "", found, accepted)]) from None
    if not columns:
        raise DataError([Problem(f"data.{field}", "", "no {column} field", "a template with one at least")])
    return columns


def blank_prompts(rows: Sequence[Row], columns: Sequence[str]) -> list[Problem]:
    """A problem for each row in which every column of the prompt is empty."""
    return [
        Problem(row.file, row.where, f"{', '.join(columns)} all empty", "text in one of them")
        for row in rows
        if not any(row.values[column].strip() for column in columns)
    ]
