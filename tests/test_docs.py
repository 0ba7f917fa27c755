"""The documentation names every command, option, exit code, key, field and objective, and none that is not there."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from autotune import cli, errors
from autotune.report.results import schema
from autotune.study_file import StudyFile
from objectives.base import OBJECTIVES
from search_spaces.deploy import DeployParams
from search_spaces.space import ADAPTER_DIMENSIONS, preset_names
from tests.study_keys import keys_of

ROOT = Path(__file__).parents[1]
OWN = {"--help", "--install-completion", "--show-completion"}


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def sections() -> dict[str, str]:
    """Command → its section of docs/commands.md."""
    parts = re.split(r"^## `autotune ([\w -]+)`$", text("docs/commands.md"), flags=re.MULTILINE)
    return {name: re.split(r"^## ", body, flags=re.MULTILINE)[0]
            for name, body in zip(parts[1::2], parts[2::2], strict=True)}


APP: Any = typer.main.get_command(cli.app)
#: Those of a group under both names, ``device show``.
COMMANDS: dict[str, Any] = {
    f"{name} {inner}".rstrip(): command for name, group in APP.commands.items()
    for inner, command in getattr(group, "commands", {"": group}).items()}


def test_every_command_has_a_section_and_no_other_has() -> None:
    assert set(sections()) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_documented_and_no_other(name: str) -> None:
    options = {opt for p in COMMANDS[name].params if p.param_type_name == "option" for opt in p.opts} - OWN
    table = [line for line in sections()[name].splitlines() if line.startswith("| `")]
    documented = {flag for line in table for flag in re.findall(r"`(--?[a-z][a-z-]*)`", line.split(" | ")[0])}
    assert documented == options
    arguments = {p.name.upper() for p in COMMANDS[name].params if p.param_type_name == "argument"}
    assert set(re.findall(r"^\| `([A-Z]+)`", sections()[name], re.MULTILINE)) == arguments


@pytest.mark.parametrize("name", COMMANDS)
def test_the_exit_codes_that_a_commands_help_names_are_documented(name: str) -> None:
    said = re.search(r"Exit codes?:(.*)", " ".join((COMMANDS[name].epilog or "").split()))
    documented = re.search(r"^Exit codes: (.*?)\n(?:\n|\Z)", sections()[name], re.MULTILINE | re.DOTALL)
    assert documented, f"no line 'Exit codes:' in the section of {name}"
    codes = set(re.findall(r"(?:^|[·;] ?)(\d+)\b", " ".join(documented[1].split())))
    assert {"0", "2"} <= codes
    if said:
        assert set(re.findall(r"(?:^|; ?)(\d+)\b", said[1].strip())) == codes


def test_every_exit_code_that_an_error_has_is_documented() -> None:
    codes = {c.exit_code for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.AutotuneError)}
    table = set(map(int, re.findall(r"^\| (\d+) \|", text("docs/commands.md"), re.MULTILINE)))
    assert codes | {0, 3, 4, cli.EXIT_INTERRUPTED} == table


def test_options_of_the_program_itself_are_documented() -> None:
    for parameter in APP.params:
        assert any(f"autotune {opt}" in text("docs/commands.md") for opt in parameter.opts), parameter.name


def named(line: str) -> tuple[str, list[str]]:
    """The command of an example, and its arguments."""
    words = shlex.split(line)[1:]
    count = 1 if words[0] in COMMANDS else 2
    return " ".join(words[:count]), words[count:]


def examples() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", text("docs/commands.md"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("autotune ")]


@pytest.mark.parametrize("line", examples())
def test_examples_are_understood(line: str) -> None:
    name, arguments = named(line)
    with COMMANDS[name].make_context(name, arguments):
        pass


def test_every_command_has_an_example() -> None:
    assert {named(line)[0] for line in examples()} == set(COMMANDS)


def test_every_key_of_a_study_is_documented_and_no_other() -> None:
    first = text("docs/study.md").partition("\n## ")[0]
    documented = {key for line in first.splitlines() if line.startswith("| `")
                  for key in re.findall(r"`([a-z_.]+)`", line.split(" | ")[0])}
    assert documented == set(keys_of(StudyFile))


def test_the_study_that_has_every_key_is_one() -> None:
    found = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text("docs/study.md"), re.DOTALL)[0])
    study = StudyFile.model_validate(found)
    left_out = {"labels", "test", "valid"}
    for key in StudyFile.model_fields:
        assert key in found
    optional = StudyFile.model_fields.keys() - {"constraints", "budget", "training", "certificate", "repeats",
                                                "workers", "storage", "store", "devices"}
    for name in optional:
        if not StudyFile.model_fields[name].is_required():
            assert getattr(study, name) == StudyFile.model_fields[name].default, name
    for name, field in type(study.data).model_fields.items():
        if not field.is_required() and name not in left_out:
            assert getattr(study.data, name) == field.default, name


def test_every_objective_is_documented_with_unit_direction_and_statistics() -> None:
    rows = {cells[0].strip("`"): cells for line in text("docs/study.md").splitlines()
            if len(cells := [c.strip() for c in line.strip("|").split("|")]) == 5}
    for objective in OBJECTIVES.values():
        _, unit, better, statistics, _ = rows[objective.name]
        assert unit == objective.unit
        assert better == {"maximize": "more", "minimize": "less"}[objective.direction]
        assert tuple(re.findall(r"`(\w+)`", statistics)) == objective.statistics


def test_every_dimension_and_preset_is_documented() -> None:
    spaces = text("docs/study.md").partition("## Spaces")[2]
    for name in (*ADAPTER_DIMENSIONS, *(f.name for f in fields(DeployParams)), *preset_names()):
        assert f"`{name}`" in spaces, name


def tables(file: str) -> dict[str, set[str]]:
    """Heading → the names in its table's first column; the text before any heading is under the file's title."""
    parts = re.split(r"^#+ (.*)$", text(file), flags=re.MULTILINE)
    return {heading: set(re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE))
            for heading, body in zip(parts[1::2], parts[2::2], strict=True)}


def test_every_field_of_the_results_is_documented_and_no_other() -> None:
    found, known = tables("docs/results.md"), schema()
    assert found["results.json"] == set(known["properties"])
    assert found["A trial"] == set(known["$defs"]["trial"]["properties"])
    assert found["The certificate"] == set(known["$defs"]["certificate"]["properties"])
