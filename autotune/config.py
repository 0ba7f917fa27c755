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
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from autotune.config_errors import UniqueKeyLoader, problems_of, unknown_keys
from autotune.constraints import ACCEPTED, Constraint, parse
from autotune.device_keys import device_problem, host_problems
from autotune.errors import BaseModelError, ConfigError, Problem
from autotune.pareto import Direction
from autotune.pipeline.base_model import resolve
from autotune.study_file import MAY_CHANGE, StudyFile, parse_duration
from objectives.base import SHARES, Objective, parse_key
from objectives.templates import template_columns
from search_spaces.space import Space, parse_space


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

    def directions(self) -> list[tuple[str, Direction]]:
        """The objectives by key, each with its direction, in the file's order."""
        return [(key, objective.direction) for key, objective in self.objectives]

    def sha256(self) -> str:
        """Identifies what is tried, so that a run can be gone on with when nothing but ``MAY_CHANGE`` did."""
        elsewhere = set() if self.file.storage else {"storage"}  # a run's trials cannot move to another database
        content = self.file.model_dump(mode="json", by_alias=True, exclude=set(MAY_CHANGE) | elsewhere)
        if content["target"]["python"] is None:  # run folders from before there was such a key are of the same study
            del content["target"]["python"]
        if content["devices"] is None:  # likewise
            del content["devices"]
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
    devices = raw.get("devices") if isinstance(raw.get("devices"), Mapping) else {}
    names = tuple(map(str, devices or ()))
    objectives = _objectives(raw.get("objectives"), task, names, name, problems)
    constraints = _constraints(raw.get("constraints"), task, names, name, problems)
    problems += [Problem(name, *p) for p in _missing_files(data or {}, base_dir)]
    problems += [Problem(name, *p) for p in _base_model(raw.get("model"), base_dir)]
    problems += [Problem(name, *p) for p in _templates(data or {})]
    problems += host_problems(raw.get("target"), devices or {}, name)
    if problems or parsed is None or space is None:
        raise ConfigError(problems)
    time_s = parse_duration(parsed.budget.time) if parsed.budget.time else None
    return StudyConfig(parsed, base_dir, space, tuple(objectives), tuple(constraints), time_s)


def _resolve(key: str, direction: Literal["maximize", "minimize"]) -> Objective:
    if ":" in key:  # evaluate:NAME, or a user's module:function
        return Objective(key, "", direction, "predictions", ())
    return parse_key(key)[0]


def _objectives(
    raw: Any, task: Any, devices: Sequence[str], name: str, problems: list[Problem]
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
        problems += [Problem(name, where, *p) for p in device_problem(key, devices)]
        if key in [k for k, _ in found]:
            problems.append(Problem(name, where, f"{key} for the second time", "each objective once"))
        problems += _task_problem(objective, task, name, where)
        found.append((key, objective))
    return found


def _constraints(
    raw: Any, task: Any, devices: Sequence[str], name: str, problems: list[Problem]
) -> list[Constraint]:
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
        problems += [Problem(name, where, *p) for p in device_problem(constraint.objective, devices)]
        problems += _task_problem(objective, task, name, where)
        share = objective.name in SHARES
        if share and not constraint.relative and not 0 <= constraint.bound <= 1:
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
