"""A run that is over, read back from its folder: what reports, comparison, selection and bundles start from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from autotune.constraints import Constraint, parse
from autotune.errors import ConfigError, Problem
from autotune.pareto import Candidate, Direction
from autotune.report.results import SCHEMA
from autotune.run_folder import read_events
from autotune.stats import Measurement
from objectives import base


@dataclass(frozen=True)
class FinishedTrial:
    """One visible trial as results.json holds it. ``values`` are all that were measured, by key; ``artifact`` is a
    folder while it is on disk, else None."""

    number: int
    state: str
    params: Mapping[str, Any]
    deploy_point: str
    values: Mapping[str, Measurement]
    feasible: bool | None
    verdicts: Mapping[str, str]
    artifact: Path | None
    on_front: bool
    tied_with: int | None
    reason: str | None

    def candidate(self) -> Candidate:
        return Candidate(self.number, {key: m.value for key, m in self.values.items()})


@dataclass(frozen=True)
class FinishedRun:
    """``document`` is results.json whole; the fields are its parts as the engine's own types.

    ``objectives`` are (key, direction) in the study's order; ``constraints`` have their numbers where the baseline
    was measured. ``units`` are by objective key.
    """

    root: Path
    document: Mapping[str, Any]
    objectives: tuple[tuple[str, Direction], ...]
    constraints: tuple[Constraint, ...]
    units: Mapping[str, str]
    trials: tuple[FinishedTrial, ...]
    front: tuple[int, ...]
    selected: int | None

    @property
    def name(self) -> str:
        return str(self.document["study"]["name"])

    @property
    def complete(self) -> tuple[FinishedTrial, ...]:
        return tuple(t for t in self.trials if t.state == "COMPLETE")

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self.document["certificate"]
        return found

    @property
    def asked(self) -> list[str]:
        """Keys of the objectives, then of what limits are on besides."""
        return list(dict.fromkeys([*(key for key, _ in self.objectives), *(c.objective for c in self.constraints)]))

    def look(self, trial: int | None) -> Mapping[str, Any] | None:
        """What the certificate found when it measured a trial again; None where it did not, or could not."""
        looks = self.certificate["looks"] if self.certificate else ()
        return next((look for look in looks if look["trial"] == trial and look["values"]), None)

    @property
    def certified(self) -> Mapping[str, Measurement]:
        """The selected trial's values as its certificate measured them; empty where there is none."""
        look = self.look(self.selected)
        return self.measured(look["values"]) if look else {}

    def measured(self, found: Mapping[str, Any]) -> dict[str, Measurement]:
        """Numbers of results.json by key."""
        return _measurements(found, self.units)

    @cached_property
    def study(self) -> Mapping[str, Any]:
        """The resolved study.yaml. Raises ConfigError where it is missing or damaged."""
        path, accepted = self.root / "study.yaml", "the file as autotune run wrote it"
        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError([Problem(str(path), "", f"cannot be read: {type(error).__name__}", accepted)]) from error
        if not isinstance(loaded, dict):
            raise ConfigError([Problem(str(path), "", f"a {type(loaded).__name__}", accepted)])
        return loaded

    @property
    def confidence(self) -> float:
        """The level of the intervals."""
        return float(self.study.get("confidence", 0.95))

    @cached_property
    def data_key(self) -> str | None:
        """Names the rows with their prompts and tokens: runs of one key were asked the same. None if none was kept."""
        try:
            return str(json.loads((self.root / "inputs.json").read_text(encoding="utf-8"))["data"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def events(self) -> list[dict[str, Any]]:
        """Every whole line of events.jsonl."""
        return read_events(self.root)

    def trial(self, number: int) -> FinishedTrial:
        """Raises ConfigError, which names the trials there are."""
        for trial in self.trials:
            if trial.number == number:
                return trial
        numbers = [t.number for t in self.trials]
        raise ConfigError([Problem(str(self.root), f"trial {number}", "no such trial",
                                   f"0 to {max(numbers)}" if numbers else "a run with trials")])

    def record(self, number: int) -> Mapping[str, Any]:
        """A trial as results.json holds it."""
        found: Mapping[str, Any] = next(t for t in self.document["trials"] if t["number"] == number)
        return found


def read_run(folder: Path) -> FinishedRun:
    """Read a run folder, finished or interrupted after its first trial.

    Raises:
        ConfigError: there is no run, or its results.json is damaged or of another schema.
    """
    document = _document(folder)
    try:
        return _parsed(folder.resolve(), document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError([Problem(str(folder / "results.json"), "", f"damaged: {type(error).__name__} {error}",
                                   "the file as autotune run wrote it")]) from error


def _document(folder: Path) -> Mapping[str, Any]:
    path = folder / "results.json"
    accepted = "the folder of an autotune run that has completed a trial"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        found = "no results.json in it" if folder.is_dir() else "no such folder"
        raise ConfigError([Problem(str(folder), "", found, accepted)]) from None
    except OSError as error:
        raise ConfigError([Problem(str(path), "", error.strerror or str(error), accepted)]) from None
    except ValueError as error:
        raise ConfigError([Problem(str(path), "", f"no JSON: {error}", "the file as autotune run wrote it")]) from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ConfigError([Problem(str(path), "schema", repr(schema), SCHEMA)])
    loaded: Mapping[str, Any] = document
    return loaded


def _parsed(root: Path, document: Mapping[str, Any]) -> FinishedRun:
    units = {o["name"]: o["unit"] for o in document["objectives"]}
    units |= {c["objective"]: c["unit"] for c in document["constraints"]}
    return FinishedRun(
        root=root, document=document,
        objectives=tuple((o["name"], o["direction"]) for o in document["objectives"]),
        constraints=tuple(_constraint(c) for c in document["constraints"]),
        units=units,
        trials=tuple(_trial(root, t, units) for t in document["trials"]),
        front=tuple(document["front"]),
        selected=document["selected"]["trial"] if document["selected"] else None,
    )


def _constraint(found: Mapping[str, Any]) -> Constraint:
    constraint = parse(found["expr"])
    if constraint.relative and found["baseline"] is not None:
        return constraint.resolved({constraint.objective: found["baseline"]})
    return constraint


def _trial(root: Path, found: Mapping[str, Any], units: Mapping[str, str]) -> FinishedTrial:
    artifact = root / found["artifact"] if found["artifact"] else None
    return FinishedTrial(
        number=found["number"], state=found["state"], params=found["params"], deploy_point=found["deploy_point"],
        values=_measurements(found["values"], units),
        feasible=found["feasible"], verdicts=found["verdicts"],
        artifact=artifact if artifact and artifact.is_dir() else None,
        on_front=found["on_front"], tied_with=found["tied_with"], reason=found["reason"],
    )


def _measurements(found: Mapping[str, Any], units: Mapping[str, str]) -> dict[str, Measurement]:
    return {key: measurement(value, unit_of(key, units)) for key, value in found.items()}


def measurement(found: Mapping[str, Any], unit: str = "") -> Measurement:
    """A number of results.json with its interval."""
    return Measurement(found["value"], found["low"], found["high"], found["n"], unit)


def unit_of(key: str, known: Mapping[str, str]) -> str:
    """The unit of an objective's key, from a run's own list or from the table of all."""
    return known[key] if key in known else base.unit_of(key)
