"""Turns what pydantic and YAML find into (field, found, accepted)."""

from __future__ import annotations

import types
import typing
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, LiteralString

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from autotune.errors import nearest

_WRONG: LiteralString = "wrong"


class UniqueKeyLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a mapping or list as a key; a text with braces needs quotes", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} for the second time", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections inside a field's type, through unions and containers."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        for argument in typing.get_args(annotation):
            yield from _sections(argument)


def _is_mapping(annotation: Any) -> bool:
    """Whether a field takes a mapping, if need be as one of several types."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) in (typing.Union, typing.Annotated):
        return any(_is_mapping(argument) for argument in typing.get_args(annotation))
    return typing.get_origin(annotation) is dict


def unknown_keys(raw: Any, model: type[BaseModel], path: str = "") -> list[tuple[str, str, str]]:
    """Keys that no section has, at every depth, each with the nearest name."""
    if not isinstance(raw, Mapping):
        return []
    accepted = {field.alias or name: field for name, field in model.model_fields.items()}
    problems = []
    for key, value in raw.items():
        where = f"{path}{key}"
        if key not in accepted:
            names = ", ".join(accepted)
            problems.append((where, f"unknown key{nearest(str(key), accepted)}", names))
            continue
        for section in _sections(accepted[key].annotation):
            if _is_mapping(accepted[key].annotation):  # of names that the user chose to sections
                for name, item in value.items() if isinstance(value, Mapping) else ():
                    problems += unknown_keys(item, section, f"{where}.{name}.")
                continue
            items = value if isinstance(value, list) else [value]
            for index, item in enumerate(items):
                dot = f"{where}[{index}]." if isinstance(value, list) else f"{where}."
                problems += unknown_keys(item, section, dot)
    return problems


def wrong(field: str, found: str, accepted: str) -> PydanticCustomError:
    """For a section's own checks; ``field`` is inside the section, empty for the section itself."""
    return PydanticCustomError(_WRONG, "{found}", {"field": field, "found": found, "accepted": accepted})


def problems_of(error: ValidationError) -> list[tuple[str, str, str]]:
    """One (field, found, accepted) a field; unknown keys are left to ``unknown_keys``."""
    problems: dict[str, tuple[str, str, str]] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == "extra_forbidden":
            continue
        where = ""
        for part in detail["loc"]:
            if isinstance(part, int):
                where += f"[{part}]"
            elif part in ("MetricSection", "str"):
                continue  # pydantic's names for the arms of a union
            else:
                where += f".{part}" if where else str(part)
        if detail["type"] == _WRONG:
            context = detail["ctx"]
            where = f"{where}.{context['field']}".rstrip(".")
            problems.setdefault(where, (where, context["found"], context["accepted"]))
            continue
        found = "missing" if detail["type"] == "missing" else _shown(detail["input"])
        accepted = _accepted(detail["type"], detail.get("ctx", {}), str(detail["msg"]))
        if detail["type"] == "literal_error":
            expected = [w.strip(" '") for w in accepted.replace(" or ", ",").split(",")]
            found += nearest(str(detail["input"]), expected)
        problems.setdefault(where, (where, found, accepted))
    return list(problems.values())


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _accepted(kind: str, context: Mapping[str, Any], message: str) -> str:
    plain = {
        "missing": "a value; the key is required",
        "int_type": "a whole number", "float_type": "a number", "string_type": "a text",
        "bool_type": "true or false", "tuple_type": "a list", "dict_type": "a mapping",
        "model_type": "a mapping", "model_attributes_type": "a mapping", "string_too_short": "a text that is not empty",
    }
    if kind in plain:
        return plain[kind]
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "string_pattern_mismatch":
        return "letters, digits, '.', '_' and '-', beginning with a letter or digit"
    if kind == "too_short":
        return f"at least {context['min_length']} of them"
    bounds = {"greater_than_equal": ("at least", "ge"), "greater_than": ("above", "gt"),
              "less_than_equal": ("at most", "le"), "less_than": ("below", "lt")}
    if kind in bounds:
        word, key = bounds[kind]
        return f"a number {word} {context[key]}"
    return message[:1].lower() + message[1:]
