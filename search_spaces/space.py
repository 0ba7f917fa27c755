"""Space: what a study may try. YAML in, typed dimensions and a finite list of deploy points out."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any, NamedTuple, Protocol

import yaml

from search_spaces.adapter import BASE_PRECISIONS, TARGET_GROUPS, VARIANTS, AdapterParams
from search_spaces.deploy import (
    ALGORITHMS,
    BLOCK_SIZES,
    INT8_WHERE,
    PRECISIONS,
    QUANTIZED,
    DeployParams,
)

Value = int | float | str | bool


class SpaceProblem(NamedTuple):
    """Where in the space (``adapter.rank``), what was found, what is accepted."""

    where: str
    found: str
    accepted: str


@dataclass(frozen=True)
class Choice:
    """One of a list of values; a list of one is a constant."""

    values: tuple[Value, ...]


@dataclass(frozen=True)
class Range:
    """A number between two bounds, both included."""

    low: float
    high: float
    log: bool = False
    integer: bool = False


Dimension = Choice | Range


class Trial(Protocol):
    """The part of an Optuna trial that a space needs."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...


@dataclass(frozen=True)
class Space:
    """Adapter dimensions by name, and every deploy point."""

    adapter: Mapping[str, Dimension]
    deploy: tuple[DeployParams, ...]

    def suggest(self, trial: Trial) -> AdapterParams:
        """One adapter point. Dimensions that depend on another are asked for behind a plain ``if``."""

        def pick(name: str, default: Any) -> Any:
            dimension = self.adapter.get(name, Choice((default,)))
            if isinstance(dimension, Choice):
                # A constant is no dimension: it would only dilute importances and densities.
                if len(dimension.values) == 1:
                    return dimension.values[0]
                return trial.suggest_categorical(name, dimension.values)
            if dimension.integer:
                return trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
            return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)

        variant = pick("variant", "lora")
        rank = int(pick("rank", 16))
        # rsLoRA divides alpha by sqrt(rank); keeping `scale` the factor that acts on B·A
        # lets both variants share one range.
        divisor = math.sqrt(rank) if variant == "rslora" else rank
        if "scale" in self.adapter:
            scale = float(pick("scale", 1.0))
            alpha = scale * divisor
        else:
            alpha = float(pick("alpha", 2 * rank))
            scale = alpha / divisor
        if "rate_scale" in self.adapter:
            # What a step moves the weights by follows rate × scale: asked for as one number, its best value hardly
            # depends on the scale, which two numbers along a ridge would have to find out together.
            learning_rate = float(pick("rate_scale", 2e-4)) / scale
        else:
            learning_rate = float(pick("learning_rate", 2e-4))
        steps = int(pick("steps", 0)) if "steps" in self.adapter else None
        return AdapterParams(
            rank=rank,
            alpha=alpha,
            learning_rate=learning_rate,
            targets=pick("targets", "all-linear"),
            # DoRA's norm is recomputed for every dropout mask, which doubles its cost.
            dropout=float(pick("dropout", 0.0)) if variant != "dora" else 0.0,
            epochs=float(pick("epochs", 2.0)) if steps is None else 0.0,
            steps=steps,
            batch_size=int(pick("batch_size", 8)),
            variant=variant,
            base_precision=pick("base_precision", "fp32"),
        )

    def adapter_count(self) -> float:
        """Number of distinct adapter points; infinite when a dimension is continuous."""
        count = 1.0
        for dimension in self.adapter.values():
            if isinstance(dimension, Choice):
                count *= len(dimension.values)
            elif dimension.integer:
                count *= dimension.high - dimension.low + 1
            else:
                return math.inf
        return count

    def nearest_values(self, wanted: Mapping[str, Value]) -> dict[str, Value]:
        """``wanted`` moved into the space: the closest choice, or the bound; constants left out."""
        inside: dict[str, Value] = {}
        if "learning_rate" in wanted and "scale" in wanted:
            wanted = {**wanted, "rate_scale": float(wanted["learning_rate"]) * float(wanted["scale"])}
        for name, dimension in self.adapter.items():
            if name not in wanted:
                continue
            value = wanted[name]
            if isinstance(dimension, Choice):
                if len(dimension.values) > 1:
                    inside[name] = _closest(value, dimension.values)
            else:
                number = min(max(float(value), dimension.low), dimension.high)
                inside[name] = round(number) if dimension.integer else number
        return inside


def _closest(value: Value, values: Sequence[Value]) -> Value:
    if value in values or isinstance(value, str):
        return value if value in values else values[0]
    return min(values, key=lambda other: abs(math.log((float(other) or 1e-9) / (float(value) or 1e-9))))


_WORDS: dict[str, tuple[str, ...]] = {
    "targets": TARGET_GROUPS, "variant": VARIANTS, "base_precision": BASE_PRECISIONS,
}
# name → (smallest, largest, whole numbers only)
_NUMBERS: dict[str, tuple[float, float, bool]] = {
    "rank": (1, 1024, True), "alpha": (1e-3, 1e5, False), "scale": (1e-3, 1e3, False),
    "learning_rate": (1e-8, 1.0, False), "rate_scale": (1e-8, 10.0, False), "dropout": (0.0, 0.9, False),
    "epochs": (0.01, 1000, False),
    "steps": (1, 1_000_000, True), "batch_size": (1, 4096, True),
}
ADAPTER_DIMENSIONS: tuple[str, ...] = (*_NUMBERS, *_WORDS)
_DEPLOY_ACCEPTED: dict[str, tuple[Value, ...]] = {
    "precision": PRECISIONS, "algorithm": ALGORITHMS, "block_size": BLOCK_SIZES, "symmetric": (True, False),
    "int8_where": INT8_WHERE, "accuracy_level": (0, 1, 2, 3, 4), "prune_head": (True, False),
    "share_embedding": (True, False),
}
_QUANTIZED_ONLY = ("algorithm", "block_size", "symmetric", "int8_where", "accuracy_level", "share_embedding")
_KEYS = ("preset", "adapter", "deploy")
#: Two ways to say one thing.
_EITHER = (("alpha", "scale"), ("epochs", "steps"), ("learning_rate", "rate_scale"))
_RANGE_KEYS = ("low", "high", "log")


def preset_names() -> tuple[str, ...]:
    folder = resources.files("search_spaces.presets")
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_preset(name: str) -> Any:
    """The raw YAML of a preset."""
    return yaml.safe_load(resources.files("search_spaces.presets").joinpath(f"{name}.yaml").read_text("utf-8"))


def _overlaid(preset: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """A preset in which the dimensions and recipes of ``own`` stand in place of its own."""
    mine = own.get("adapter", {})
    if not isinstance(mine, Mapping):
        return {**preset, **own}
    said_otherwise = {name for pair in _EITHER if set(pair) & set(mine) for name in pair}
    kept = {name: value for name, value in preset["adapter"].items() if name not in said_otherwise}
    return {**preset, **own, "adapter": {**kept, **mine}}


def parse_space(raw: Any) -> tuple[Space | None, list[SpaceProblem]]:
    """A preset's name, the dimensions themselves, or a preset with some of them replaced → Space, with every problem.

    The Space is None exactly when there are problems.
    """
    where = "" if isinstance(raw, str) else "preset"
    raw = {"preset": raw} if isinstance(raw, str) else raw
    if isinstance(raw, Mapping) and "preset" in raw:
        name = raw["preset"]
        if name not in preset_names():
            return None, [SpaceProblem(where, f"no preset named {name!r}{_hint(str(name), preset_names())}",
                                       f"one of {', '.join(preset_names())}, or dimensions inline")]
        raw = _overlaid(load_preset(name), raw)
    if not isinstance(raw, Mapping):
        return None, [SpaceProblem("", f"a {type(raw).__name__}",
                                   "a preset's name, {adapter: …, deploy: …}, or {preset: …, adapter: …}")]
    problems = [
        SpaceProblem(str(key), f"unknown key{_hint(str(key), _KEYS)}", ", ".join(_KEYS))
        for key in raw if key not in _KEYS
    ]
    adapter = _parse_adapter(raw.get("adapter"), problems)
    deploy = _parse_deploy(raw.get("deploy"), problems)
    return (None, problems) if problems else (Space(adapter, deploy), [])


def _parse_adapter(raw: Any, problems: list[SpaceProblem]) -> dict[str, Dimension]:
    if not isinstance(raw, Mapping):
        problems.append(SpaceProblem("adapter", "missing" if raw is None else f"a {type(raw).__name__}",
                                     f"a mapping over {', '.join(ADAPTER_DIMENSIONS)}"))
        return {}
    dimensions: dict[str, Dimension] = {}
    for key, value in raw.items():
        name, where = str(key), f"adapter.{key}"
        if name not in ADAPTER_DIMENSIONS:
            problems.append(SpaceProblem(where, f"unknown dimension{_hint(name, ADAPTER_DIMENSIONS)}",
                                         ", ".join(ADAPTER_DIMENSIONS)))
        elif isinstance(value, Mapping):
            dimension = _parse_range(name, value, where, problems)
            if dimension:
                dimensions[name] = dimension
        else:
            values = value if isinstance(value, list) else [value]
            if not values:
                problems.append(SpaceProblem(where, "an empty list", "at least one value"))
            bad = [v for v in values if not _acceptable(name, v)]
            problems.extend(SpaceProblem(where, repr(v) + _hint(str(v), _WORDS.get(name, ())), _accepted(name))
                            for v in bad)
            if values and not bad:
                dimensions[name] = Choice(tuple(dict.fromkeys(values)))
    for one, other in _EITHER:
        if one in raw and other in raw:
            problems.append(SpaceProblem(f"adapter.{other}", f"given beside {one}", f"{one} or {other}, not both"))
    return dimensions


def _parse_range(
    name: str, raw: Mapping[Any, Any], where: str, problems: list[SpaceProblem]
) -> Dimension | None:
    before = len(problems)
    if name not in _NUMBERS:
        problems.append(SpaceProblem(where, "a range", f"a value or a list of {', '.join(_WORDS[name])}"))
        return None
    problems.extend(
        SpaceProblem(f"{where}.{k}", f"unknown key{_hint(str(k), _RANGE_KEYS)}", ", ".join(_RANGE_KEYS))
        for k in raw if k not in _RANGE_KEYS
    )
    for bound in ("low", "high"):
        if bound not in raw:
            problems.append(SpaceProblem(f"{where}.{bound}", "missing", _accepted(name)))
        elif not _acceptable(name, raw[bound]):
            problems.append(SpaceProblem(f"{where}.{bound}", repr(raw[bound]), _accepted(name)))
    log = raw.get("log", False)
    if not isinstance(log, bool):
        problems.append(SpaceProblem(f"{where}.log", repr(log), "true or false"))
    if len(problems) == before and raw["low"] >= raw["high"]:
        problems.append(SpaceProblem(where, f"low {raw['low']} and high {raw['high']}", "low below high"))
    if len(problems) == before and log and raw["low"] <= 0:
        problems.append(SpaceProblem(f"{where}.low", repr(raw["low"]), "above 0 on a log axis"))
    if len(problems) > before:
        return None
    return Range(float(raw["low"]), float(raw["high"]), log, _NUMBERS[name][2])


def _parse_deploy(raw: Any, problems: list[SpaceProblem]) -> tuple[DeployParams, ...]:
    if not isinstance(raw, list) or not raw:
        problems.append(SpaceProblem("deploy", "missing" if raw is None else repr(raw)[:60],
                                     "a list of recipes such as {precision: int4, block_size: [32, 128]}"))
        return ()
    points: dict[DeployParams, None] = {}
    for index, recipe in enumerate(raw):
        where = f"deploy[{index}]"
        if not isinstance(recipe, Mapping):
            problems.append(SpaceProblem(where, repr(recipe)[:60], "a mapping such as {precision: int8}"))
            continue
        before = len(problems)
        options = {str(k): (v if isinstance(v, list) else [v]) for k, v in recipe.items()}
        _check_recipe(options, where, problems)
        if len(problems) > before:
            continue
        for values in itertools.product(*options.values()):
            points[DeployParams(**dict(zip(options, values, strict=True)))] = None
    return tuple(points)


def _check_recipe(options: Mapping[str, list[Any]], where: str, problems: list[SpaceProblem]) -> None:
    names = tuple(f.name for f in fields(DeployParams))
    if "precision" not in options:
        problems.append(SpaceProblem(f"{where}.precision", "missing", ", ".join(PRECISIONS)))
    for name, values in options.items():
        if name not in names:
            problems.append(SpaceProblem(f"{where}.{name}", f"unknown key{_hint(name, names)}", ", ".join(names)))
            continue
        accepted = _DEPLOY_ACCEPTED[name]
        for value in values:
            # `1 == True` in Python, so types are compared too.
            if not any(value == a and type(value) is type(a) for a in accepted):
                problems.append(SpaceProblem(f"{where}.{name}", repr(value) + _hint(str(value), map(str, accepted)),
                                             ", ".join(str(a).lower() if isinstance(a, bool) else str(a)
                                                       for a in accepted)))
        if not values:
            problems.append(SpaceProblem(f"{where}.{name}", "an empty list", "at least one value"))
    floats = [p for p in options.get("precision", []) if p in PRECISIONS and p not in QUANTIZED]
    misplaced = [name for name in _QUANTIZED_ONLY if name in options]
    if floats and misplaced:
        problems.append(SpaceProblem(f"{where}.{misplaced[0]}", f"given for {', '.join(floats)}",
                                     "int8 or int4 recipes alone; put the others in a recipe of their own"))
    if "int8" in options.get("precision", []) and options.get("int8_where", ["none"]) != ["none"]:
        problems.append(SpaceProblem(f"{where}.int8_where", "given for int8", "int4 recipes alone"))


def _acceptable(name: str, value: Any) -> bool:
    if name in _WORDS:
        return isinstance(value, str) and value in _WORDS[name]
    low, high, whole = _NUMBERS[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return low <= value <= high and (not whole or float(value).is_integer())


def _accepted(name: str) -> str:
    if name in _WORDS:
        return ", ".join(_WORDS[name])
    low, high, whole = _NUMBERS[name]
    return f"a{' whole' if whole else ''} number from {low:g} to {high:g}"


def _hint(name: str, accepted: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(accepted), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""

