"""The probe's request, checked by hand: on the device there is no library to do it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROTOCOL = 3

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Asked:
    """What a task asks: token ids, or texts that the artifact's own tokenizer turns into ids. One of them is empty.

    With ``chat`` a text is a user's message, to be put into the artifact's chat template.
    """

    prompts: tuple[Ids, ...]
    texts: tuple[str, ...] = ()
    chat: bool = False

    def __len__(self) -> int:
        return len(self.prompts) or len(self.texts)


@dataclass(frozen=True)
class ChoiceTask:
    asked: Asked
    labels: tuple[Ids, ...]
    eos_id: int
    expected: tuple[int, ...] = ()
    stop: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class GenerateTask:
    asked: Asked
    max_new_tokens: int
    stop_ids: frozenset[int]
    stop_strings: tuple[str, ...]


@dataclass(frozen=True)
class Reference:
    """Another artifact, timed by turns with the request's own."""

    artifact: Path
    min_generator_length: int


@dataclass(frozen=True)
class LatencyTask:
    prompts: tuple[Ids, ...]
    new_tokens: int
    ignore_eos: bool
    stop_ids: frozenset[int]
    samples: int
    max_seconds: float
    reference: Reference | None
    resident: bool
    sustain_seconds: float


Task = ChoiceTask | GenerateTask | LatencyTask


@dataclass(frozen=True)
class Request:
    artifact: Path
    provider: str
    provider_options: dict[str, str]
    threads: int
    min_generator_length: int
    tasks: tuple[Task, ...]


class RequestError(ValueError):
    """The request cannot be run; the message names the field, what was found and what is accepted."""


#: key → whether it must be there.
_REQUEST_KEYS = {
    "protocol": True, "artifact": True, "provider": True, "provider_options": False,
    "threads": True, "min_generator_length": False, "tasks": True,
}
_TASK_KEYS: dict[str, dict[str, bool]] = {
    "choice": {
        "kind": True, "prompts": False, "texts": False, "chat": False, "labels": True, "eos_id": True,
        "expected": False, "stop": False,
    },
    "generate": {
        "kind": True, "prompts": False, "texts": False, "chat": False, "max_new_tokens": True, "stop_ids": False,
        "stop_strings": False,
    },
    "latency": {
        "kind": True, "prompts": True, "new_tokens": True, "ignore_eos": True, "stop_ids": False,
        "samples": True, "max_seconds": True, "reference": False, "resident": False, "sustain_seconds": False,
    },
}
_REFERENCE_KEYS = {"artifact": True, "min_generator_length": False}


def read_request(path: Path) -> Request:
    """Read and check a request file; raises RequestError."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read the request {path.name}: {error}") from error
    return parse_request(raw)


def parse_request(raw: Any) -> Request:
    if not isinstance(raw, dict):
        raise RequestError(f"the request is a {type(raw).__name__}; accepted: an object")
    if raw.get("protocol") != PROTOCOL:
        raise RequestError(f"protocol: found {raw.get('protocol')!r}; accepted: {PROTOCOL}")
    _check_keys(raw, _REQUEST_KEYS, "request")
    options = raw.get("provider_options", {})
    if not isinstance(options, dict):
        raise RequestError(f"provider_options: found {options!r}; accepted: an object, name to value")
    tasks = raw["tasks"]
    if not isinstance(tasks, list) or not tasks:
        raise RequestError(f"tasks: found {tasks!r}; accepted: a list of at least one task")
    parsed = tuple(_task(task, f"task {i}") for i, task in enumerate(tasks))
    _check_timed(parsed)
    return Request(
        artifact=Path(_text(raw, "artifact", "request")),
        provider=_text(raw, "provider", "request"),
        provider_options={str(k): str(v) for k, v in options.items()},
        threads=_count(raw, "threads", "request", at_least=1),
        min_generator_length=_count(raw, "min_generator_length", "request", default=0),
        tasks=parsed,
    )


def _check_timed(tasks: Sequence[Task]) -> None:
    """Latency is one task at most; what a reference leaves in memory must not count for a task after it."""
    timed = [i for i, task in enumerate(tasks) if isinstance(task, LatencyTask)]
    if len(timed) > 1:
        raise RequestError(f"tasks: found latency in tasks {timed}; accepted: one latency task")
    for i in timed:
        task = tasks[i]
        if isinstance(task, LatencyTask) and task.reference and i < len(tasks) - 1:
            raise RequestError(f"task {i}: reference: found before other tasks; accepted: in the last task alone")


def _task(raw: Any, where: str) -> Task:
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if kind not in _TASK_KEYS:
        raise RequestError(f"{where}: kind: found {kind!r}; accepted: {', '.join(_TASK_KEYS)}")
    _check_keys(raw, _TASK_KEYS[kind], where)
    if kind == "choice":
        asked, labels = _asked(raw, where), _ids_lists(raw, "labels", where)
        expected, stop = _stopping(raw, where, len(asked), len(labels))
        return ChoiceTask(asked, labels, _count(raw, "eos_id", where), expected, stop)
    if kind == "generate":
        return GenerateTask(
            _asked(raw, where), _count(raw, "max_new_tokens", where, at_least=1),
            _id_set(raw, where), _texts(raw, "stop_strings", where),
        )
    return LatencyTask(
        _ids_lists(raw, "prompts", where), _count(raw, "new_tokens", where, at_least=1),
        _flag(raw, "ignore_eos", where), _id_set(raw, where), _count(raw, "samples", where, at_least=1),
        _seconds(raw, "max_seconds", where), _reference(raw.get("reference"), where),
        _flag(raw, "resident", where, default=True), _seconds(raw, "sustain_seconds", where),
    )


def _asked(raw: Mapping[str, Any], where: str) -> Asked:
    given = [key for key in ("prompts", "texts") if key in raw]
    if len(given) != 1:
        found = " and ".join(given) or "neither prompts nor texts"
        raise RequestError(f"{where}: {found} found; accepted: one of them")
    if given == ["prompts"]:
        if "chat" in raw:
            raise RequestError(f"{where}: chat: found beside prompts; accepted: beside texts")
        return Asked(_ids_lists(raw, "prompts", where))
    texts = _texts(raw, "texts", where)
    if not texts:
        raise RequestError(f"{where}: texts: found none; accepted: at least one")
    return Asked((), texts, _flag(raw, "chat", where, default=False))


def _reference(raw: Any, where: str) -> Reference | None:
    if raw is None:
        return None
    where = f"{where}: reference"
    if not isinstance(raw, dict):
        raise RequestError(f"{where}: found {_short(raw)}; accepted: an object")
    _check_keys(raw, _REFERENCE_KEYS, where)
    return Reference(Path(_text(raw, "artifact", where)), _count(raw, "min_generator_length", where, default=0))


def _stopping(
    raw: Mapping[str, Any], where: str, prompts: int, labels: int
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """The right labels and when to stop for too few of them; neither where the task names neither."""
    given = [key for key in ("expected", "stop") if key in raw]
    if not given:
        return (), ()
    if len(given) == 1:
        raise RequestError(f"{where}: {given[0]} found alone; accepted: expected and stop, both or neither")
    expected, stop = raw["expected"], raw["stop"]
    if not isinstance(expected, list) or len(expected) != prompts:
        raise RequestError(f"{where}: expected: found {_short(expected)}; accepted: {prompts} indices of labels")
    for i, label in enumerate(expected):
        if not _is_int(label) or not 0 <= label < labels:
            raise RequestError(f"{where}: expected[{i}]: found {label!r}; accepted: 0 to {labels - 1}")
    if not isinstance(stop, list):
        raise RequestError(f"{where}: stop: found {_short(stop)}; accepted: a list of [rows, at most right]")
    before = 0
    for i, look in enumerate(stop):
        if not isinstance(look, list) or len(look) != 2 or not all(map(_is_int, look)):
            raise RequestError(f"{where}: stop[{i}]: found {_short(look)}; accepted: [rows, at most right]")
        rows, right = look
        if not before < rows < prompts:
            raise RequestError(f"{where}: stop[{i}]: found {rows} rows; accepted: {before + 1} to {prompts - 1}")
        if not 0 <= right <= rows:
            raise RequestError(f"{where}: stop[{i}]: found at most {right} right; accepted: 0 to {rows}")
        before = rows
    return tuple(expected), tuple((rows, right) for rows, right in stop)


def _check_keys(raw: Mapping[str, Any], keys: Mapping[str, bool], where: str) -> None:
    missing = [key for key, required in keys.items() if required and key not in raw]
    if missing:
        raise RequestError(f"{where}: missing {', '.join(missing)}")
    for key in raw:
        if key not in keys:
            close = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise RequestError(f"{where}: unknown key {key!r}{hint}; accepted: {', '.join(keys)}")


def _text(raw: Mapping[str, Any], key: str, where: str) -> str:
    if not isinstance(raw[key], str) or not raw[key]:
        raise RequestError(f"{where}: {key}: found {raw[key]!r}; accepted: text")
    return str(raw[key])


def _count(
    raw: Mapping[str, Any], key: str, where: str, at_least: int = 0, default: int | None = None
) -> int:
    value = raw.get(key, default)
    if not _is_int(value) or value < at_least:
        raise RequestError(f"{where}: {key}: found {value!r}; accepted: an integer >= {at_least}")
    return int(value)


def _seconds(raw: Mapping[str, Any], key: str, where: str) -> float:
    value = raw.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise RequestError(f"{where}: {key}: found {value!r}; accepted: a number >= 0")
    return float(value)


def _flag(raw: Mapping[str, Any], key: str, where: str, default: bool | None = None) -> bool:
    value = raw.get(key, default)
    if not isinstance(value, bool):
        raise RequestError(f"{where}: {key}: found {value!r}; accepted: true, false")
    return value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _ids_lists(raw: Mapping[str, Any], key: str, where: str) -> tuple[Ids, ...]:
    rows = raw[key]
    if not isinstance(rows, list) or not rows:
        raise RequestError(f"{where}: {key}: found {_short(rows)}; accepted: lists of token ids")
    for i, ids in enumerate(rows):
        if not isinstance(ids, list) or not ids or not all(_is_int(t) and t >= 0 for t in ids):
            raise RequestError(f"{where}: {key}[{i}]: found {_short(ids)}; accepted: token ids, at least one")
    return tuple(tuple(ids) for ids in rows)


def _id_set(raw: Mapping[str, Any], where: str) -> frozenset[int]:
    ids = raw.get("stop_ids", [])
    if not isinstance(ids, list) or not all(_is_int(t) for t in ids):
        raise RequestError(f"{where}: stop_ids: found {_short(ids)}; accepted: a list of token ids")
    return frozenset(ids)


def _texts(raw: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    strings: Sequence[Any] = raw.get(key, [])
    if not isinstance(strings, list) or not all(isinstance(s, str) and s for s in strings):
        raise RequestError(f"{where}: {key}: found {_short(strings)}; accepted: texts, none empty")
    return tuple(strings)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
