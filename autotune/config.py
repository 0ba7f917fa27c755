"""study.yaml → a frozen, typed StudyConfig, with every error at once.

The config is flattened at the door: stages receive plain values from it, never the config itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from autotune.config_errors import UniqueKeyLoader, problems_of, unknown_keys, wrong
from autotune.constraints import ACCEPTED, Constraint, parse
from autotune.errors import BaseModelError, ConfigError, Problem
from autotune.pipeline.base_model import resolve
from autotune.pipeline.templates import template_columns
from objectives.base import Objective, parse_key
from search_spaces.space import Space, parse_space

Text = Annotated[str, Strict(), Field(min_length=1)]
Count = Annotated[int, Strict(), Field(ge=1)]
Whole = Annotated[int, Strict(), Field(ge=0)]
Flag = Annotated[bool, Strict()]
Policy = Literal["most-accurate", "fastest", "smallest", "knee"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSection(_Section):
    train: Text
    valid: Text | None = None
    test: Text | None = None
    prompt: Text
    answer: Text
    chat: Flag = False
    task: Literal["choice", "generate"]
    labels: Annotated[tuple[Text, ...], Field(min_length=2)] | None = None
    max_new_tokens: Count = 64
    stop: tuple[Text, ...] = ()
    max_tokens: Count = 1024

    @model_validator(mode="after")
    def _labels_fit(self) -> DataSection:
        if self.labels and self.task == "generate":
            raise wrong("labels", "given for task generate", "labels for task choice alone")
        if self.labels and len(set(self.labels)) < len(self.labels):
            raise wrong("labels", "a label twice", "each label once")
        return self


class WorkloadSection(_Section):
    """What latency is measured on: fixed lengths, or the validation rows' own prompts."""

    prompt_tokens: Count | None = None
    new_tokens: Count | None = None
    from_: Literal["valid"] | None = Field(default=None, alias="from")
    samples: Annotated[int, Strict(), Field(ge=5)] = 20

    @model_validator(mode="after")
    def _one_kind(self) -> WorkloadSection:
        if self.from_ and self.prompt_tokens:
            raise wrong("prompt_tokens", "given beside from", "one of them")
        if not self.from_ and not (self.prompt_tokens and self.new_tokens):
            raise wrong("", "neither both lengths nor from", "{prompt_tokens: N, new_tokens: M} or {from: valid}")
        return self


class TargetSection(_Section):
    provider: Literal["cpu", "cuda", "dml"] = "cpu"
    provider_options: dict[str, str] = Field(default_factory=dict)
    threads: Count
    host: Literal["local"] = "local"
    workload: WorkloadSection
    context_length: Annotated[int, Strict(), Field(ge=16)] | None = None

    @model_validator(mode="after")
    def _workload_fits(self) -> TargetSection:
        tokens = (self.workload.prompt_tokens or 0) + (self.workload.new_tokens or 0)
        if self.context_length and tokens > self.context_length:
            raise wrong("context_length", str(self.context_length), f"at least the workload's {tokens} tokens")
        return self


class MetricSection(_Section):
    metric: Text
    direction: Literal["maximize", "minimize"] = "maximize"


class BudgetSection(_Section):
    adapters: Count | None = None
    trials: Count | None = None
    time: Text | None = None

    @model_validator(mode="after")
    def _a_duration(self) -> BudgetSection:
        try:
            parse_duration(self.time or "1s")
        except ValueError as error:
            raise wrong("time", str(error), "such as 90s, 15m or 1h30m") from None
        return self


class TrainingSection(_Section):
    seed: Whole = 0
    threads: Count | None = None


class StudyFile(_Section):
    """The keys of a study.yaml."""

    name: Annotated[str, Strict(), Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    model: Text
    data: DataSection
    target: TargetSection
    space: Any
    objectives: Annotated[tuple[str | MetricSection, ...], Field(min_length=1)]
    constraints: tuple[Text, ...] = ()
    confidence: Annotated[float, Strict(), Field(gt=0.5, lt=1)] = 0.95
    policy: Policy = "most-accurate"
    budget: BudgetSection = Field(default_factory=lambda: BudgetSection(adapters=8))
    seed: Whole = 0
    early_stop_error: Annotated[float, Strict(), Field(ge=0, le=0.1)] = 0.002
    training: TrainingSection = TrainingSection()


@dataclass(frozen=True)
class StudyConfig:
    """A study that can be run: everything parsed, names resolved.

    ``objectives`` are (key, Objective) pairs in the file's order; ``time_s`` is the budget in seconds;
    ``base_dir`` is what relative paths are relative to.
    """

    file: StudyFile
    base_dir: Path
    space: Space
    objectives: tuple[tuple[str, Objective], ...]
    constraints: tuple[Constraint, ...]
    time_s: float | None

    def measured(self) -> dict[str, Objective]:
        """Every objective that is asked for or constrained, by key."""
        known = dict(self.objectives)
        for constraint in self.constraints:
            if constraint.objective not in known:
                known[constraint.objective] = _resolve(constraint.objective, "maximize")
        return known

    def sha256(self) -> str:
        """Identifies what is searched; the budget is left out, so that a run can be prolonged."""
        content = self.file.model_dump(mode="json", by_alias=True, exclude={"budget"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_config(path: Path) -> StudyConfig:
    """Read, check and resolve a study file.

    Raises:
        ConfigError: with one Problem for everything that is wrong in it.
    """
    name = str(path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=UniqueKeyLoader)
    except OSError as error:
        raise ConfigError([Problem(name, "", error.strerror or str(error), "a readable study.yaml")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(name, f"byte {error.start}", "not UTF-8", "a UTF-8 text file")]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else ""
        raise ConfigError([Problem(name, where, getattr(error, "problem", None) or str(error), "YAML")]) from None
    if not isinstance(raw, Mapping):
        raise ConfigError([Problem(name, "", f"a {type(raw).__name__}", "a mapping with name, model, data, …")])
    return resolve_config(raw, name, path.resolve().parent)


def resolve_config(raw: Mapping[str, Any], name: str, base_dir: Path) -> StudyConfig:
    """A study given as a mapping; ``name`` is what errors call it."""
    problems = [Problem(name, *p) for p in unknown_keys(raw, StudyFile)]
    parsed: StudyFile | None = None
    try:
        parsed = StudyFile.model_validate(raw)
    except ValidationError as error:
        problems += [Problem(name, *p) for p in problems_of(error)]
    space, space_problems = parse_space(raw["space"]) if "space" in raw else (None, [])
    problems += [Problem(name, f"space.{p.where}".rstrip("."), p.found, p.accepted) for p in space_problems]

    data = raw.get("data") if isinstance(raw.get("data"), Mapping) else {}
    task = data.get("task") if isinstance(data, Mapping) else None
    objectives = _objectives(raw.get("objectives"), task, name, problems)
    constraints = _constraints(raw.get("constraints"), task, name, problems)
    problems += [Problem(name, *p) for p in _missing_files(data or {}, base_dir)]
    problems += [Problem(name, *p) for p in _base_model(raw.get("model"), base_dir)]
    problems += [Problem(name, *p) for p in _templates(data or {})]
    if problems or parsed is None or space is None:
        raise ConfigError(problems)
    time_s = parse_duration(parsed.budget.time) if parsed.budget.time else None
    return StudyConfig(parsed, base_dir, space, tuple(objectives), tuple(constraints), time_s)


def parse_duration(text: str) -> float:
    """``1h30m``, ``15m``, ``90s`` → seconds.

    Raises:
        ValueError: of another form, or zero.
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    parts = match.groups() if match else ()
    seconds = sum(int(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=bool(parts)))
    if not seconds:
        raise ValueError(repr(text))
    return float(seconds)


def _resolve(key: str, direction: Literal["maximize", "minimize"]) -> Objective:
    if ":" in key:  # evaluate:NAME, or a user's module:function
        return Objective(key, "", direction, "predictions", ())
    return parse_key(key)[0]


def _objectives(
    raw: Any, task: Any, name: str, problems: list[Problem]
) -> list[tuple[str, Objective]]:
    found: list[tuple[str, Objective]] = []
    for index, entry in enumerate(raw if isinstance(raw, Sequence) and not isinstance(raw, str) else ()):
        key = entry.get("metric") if isinstance(entry, Mapping) else entry
        wanted = entry.get("direction", "maximize") if isinstance(entry, Mapping) else "maximize"
        if not isinstance(key, str) or wanted not in ("maximize", "minimize"):
            continue  # pydantic has named it
        direction: Literal["maximize", "minimize"] = "minimize" if wanted == "minimize" else "maximize"
        where = f"objectives[{index}]"
        try:
            objective = _resolve(key, direction)
        except ValueError as error:
            problems.append(Problem(name, where, *_split(error)))
            continue
        if key in [k for k, _ in found]:
            problems.append(Problem(name, where, f"{key} for the second time", "each objective once"))
        problems += _task_problem(objective, task, name, where)
        found.append((key, objective))
    return found


def _constraints(raw: Any, task: Any, name: str, problems: list[Problem]) -> list[Constraint]:
    found: list[Constraint] = []
    for index, expr in enumerate(raw if isinstance(raw, Sequence) and not isinstance(raw, str) else ()):
        if not isinstance(expr, str) or not expr:
            continue
        where = f"constraints[{index}]"
        try:
            constraint = parse(expr)
        except ValueError as error:
            problems.append(Problem(name, where, str(error), ACCEPTED))
            continue
        try:
            objective = _resolve(constraint.objective, "maximize")
        except ValueError as error:
            problems.append(Problem(name, where, *_split(error)))
            continue
        problems += _task_problem(objective, task, name, where)
        if objective.name in ("accuracy", "macro_f1", "exact_match") and not 0 <= constraint.bound <= 1:
            problems.append(Problem(name, where, f"the bound {constraint.bound:g}", "a share from 0 to 1"))
        found.append(constraint)
    return found


def _split(error: ValueError) -> tuple[str, str]:
    """parse_key says 'found; accepted: list' in one message."""
    found, _, accepted = str(error).partition("; accepted: ")
    return found, accepted or "an objective"


def _task_problem(objective: Objective, task: Any, name: str, where: str) -> list[Problem]:
    wrong = {"choice": ("exact_match",), "generate": ("accuracy", "macro_f1")}.get(str(task), ())
    if objective.name in wrong:
        better = "accuracy, macro_f1" if task == "choice" else "exact_match, evaluate:NAME or module:function"
        return [Problem(name, where, f"{objective.name} with task {task}", better)]
    return []


def _missing_files(data: Mapping[str, Any], base_dir: Path) -> list[tuple[str, str, str]]:
    return [
        (f"data.{split}", f"no file {base_dir / source}",
         "a .jsonl, .json, .csv or .parquet file beside the study, or a hub data set")
        for split in ("train", "valid", "test")
        if isinstance(source := data.get(split), str)
        and re.search(r"\.(jsonl|json|csv|parquet)$", source) and not (base_dir / source).is_file()
    ]


def _templates(data: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    problems = []
    for field in ("prompt", "answer"):
        template = data.get(field)
        if not isinstance(template, str) or not template:
            continue
        try:
            if not template_columns(template):
                problems.append((f"data.{field}", "no {column} field", "a template with one at least"))
        except ValueError as error:
            problems.append((f"data.{field}", *_split(error)))
    return problems


def _base_model(spec: Any, base_dir: Path) -> list[tuple[str, str, str]]:
    """What is wrong with the base model's name, without loading anything of it."""
    if not isinstance(spec, str) or not spec:
        return []
    try:
        resolve(spec, base_dir)
    except BaseModelError as error:
        return [("model", p.found, p.accepted) for p in error.problems]
    return []
