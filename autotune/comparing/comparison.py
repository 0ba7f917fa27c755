"""Runs beside each other: what differs, whose front covers more, and which is best where. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune import pareto
from autotune.choosing.selection import same_rows
from autotune.comparing.contrast import Contrast, Right, contrast
from autotune.comparing.covered import Covered, covered
from autotune.comparing.stretches import Stretch, stretches
from autotune.comparing.study_differences import (
    Difference,
    environment_differences,
    is_of_the_target,
    study_differences,
    target_differences,
)
from autotune.errors import ConfigError, Problem
from autotune.finished import FinishedRun, FinishedTrial
from autotune.pareto import POLICIES, Direction, Policy
from objectives.base import is_answers


@dataclass(frozen=True)
class Entrant:
    """A run with a label of its own among those compared, and its front.

    ``front`` is over the objectives that all runs have, of the ``feasible`` trials under the run's own limits.
    ``right`` are which rows its trials answered right, where that was kept.
    """

    label: str
    run: FinishedRun
    feasible: int
    front: tuple[FinishedTrial, ...]
    right: Mapping[int, Right]


@dataclass(frozen=True)
class Best:
    """What a policy picks of each run's front, None of one without; ``contrasts`` are each pick less the first run's,
    by objective, empty for that one and where one of both is missing."""

    policy: Policy
    picks: tuple[FinishedTrial | None, ...]
    contrasts: tuple[Mapping[str, Contrast], ...]


@dataclass(frozen=True)
class Comparison:
    """``objectives`` are those that all runs have, ``left_out`` the other ones. ``stretches`` are by cost, of the
    objective ``gain``, empty where there is nothing to hold against it."""

    entrants: tuple[Entrant, ...]
    objectives: tuple[tuple[str, Direction], ...]
    left_out: tuple[str, ...]
    study: tuple[Difference, ...]
    environment: tuple[Difference, ...]
    warnings: tuple[str, ...]
    covered: Covered
    gain: str
    stretches: Mapping[str, tuple[Stretch, ...]]
    best: tuple[Best, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(entrant.label for entrant in self.entrants)


def compare(
    runs: Sequence[FinishedRun], right: Sequence[Mapping[int, Right]], any_target: bool = False
) -> Comparison:
    """Compare two runs or more; ``right`` are each one's rows that were answered right, by trial.

    Raises:
        ConfigError: fewer than two runs, one twice, no objective in common, a limit without a number; or times or
            memory of different targets, unless ``any_target``.
    """
    labels = labels_of([run.root for run in runs])
    objectives, left_out = _common(runs, labels)
    problems = [p for run in runs for p in _unresolved(run)]
    targets = target_differences(runs)
    timed = [key for key, _ in objectives if is_of_the_target(key)]
    if timed and not any_target:
        problems += [Problem(d.where, "", d.told(labels), f"one target for all runs, as {', '.join(timed)} "
                             f"{'is' if len(timed) == 1 else 'are'} of it; or --any-target") for d in targets]
    if problems:
        raise ConfigError(problems)
    entrants = tuple(_entrant(*found, objectives) for found in zip(labels, runs, right, strict=True))
    gain = next((o for o in objectives if is_answers(o[0])), objectives[0])
    costs = [o for o in objectives if o != gain and not is_answers(o[0])]

    def settled(i: int, one: FinishedTrial, j: int, other: FinishedTrial) -> bool:
        return _contrast(entrants[i], one, entrants[j], other, gain[0]).settled

    fronts = [e.front for e in entrants]
    return Comparison(
        entrants, objectives, left_out, study_differences(runs), environment_differences(runs),
        tuple(_warnings(runs, labels, objectives, targets)), covered(fronts, objectives, [r.constraints for r in runs]),
        gain[0], {cost[0]: stretches(fronts, gain, cost, settled) for cost in costs},
        tuple(_best(policy, entrants, objectives) for policy in POLICIES
              if any(pareto.goes_by(policy, key) for key, _ in objectives)))


def labels_of(folders: Sequence[Path]) -> tuple[str, ...]:
    """Folder names, with as many folders above as it takes to tell them apart.

    Raises:
        ConfigError: fewer than two folders, or one twice.
    """
    twice = [str(f) for f in dict.fromkeys(folders) if folders.count(f) > 1]
    if twice or len(folders) < 2:
        raise ConfigError([Problem("RUN", "", f"{', '.join(twice)} for the second time" if twice
                                   else f"{len(folders)} run", "two different runs at least")])
    parts = 1
    while len({f.parts[-parts:] for f in folders}) < len(folders):
        parts += 1
    return tuple(str(Path(*f.parts[-parts:])) for f in folders)


def _common(
    runs: Sequence[FinishedRun], labels: Sequence[str]
) -> tuple[tuple[tuple[str, Direction], ...], tuple[str, ...]]:
    common = tuple(o for o in runs[0].objectives if all(o in run.objectives for run in runs))
    if not common:
        found = "; ".join(f"{label} has {', '.join(k for k, _ in run.objectives)}"
                          for label, run in zip(labels, runs, strict=True))
        raise ConfigError([Problem("objectives", "", f"none in common: {found}", "runs that share an objective")])
    every = dict.fromkeys(key for run in runs for key, _ in run.objectives)
    return common, tuple(key for key in every if key not in {k for k, _ in common})


def _unresolved(run: FinishedRun) -> list[Problem]:
    return [Problem(str(run.root / "results.json"), f"constraints: {c.expr}", "its baseline was not measured, so that "
                    "it has no number", "a run that completed a trial")
            for c in run.constraints if c.relative and c.baseline is None]


def _entrant(
    label: str, run: FinishedRun, right: Mapping[int, Right], objectives: Sequence[tuple[str, Direction]]
) -> Entrant:
    fits = [t.candidate() for t in run.complete if pareto.feasible(t.candidate(), run.constraints)]
    front = tuple(run.trial(number) for number in pareto.front(fits, objectives, ()))
    return Entrant(label, run, len(fits), front, right)


def _best(policy: Policy, entrants: Sequence[Entrant], objectives: Sequence[tuple[str, Direction]]) -> Best:
    numbers = [pareto.select([t.candidate() for t in e.front], objectives, policy) for e in entrants]
    picks = tuple(None if n is None else e.run.trial(n) for e, n in zip(entrants, numbers, strict=True))
    first = picks[0]
    contrasts: list[Mapping[str, Contrast]] = [{}]
    for entrant, pick in zip(entrants[1:], picks[1:], strict=True):
        contrasts.append({key: _contrast(entrant, pick, entrants[0], first, key) for key, _ in objectives}
                         if first and pick else {})
    return Best(policy, picks, tuple(contrasts))


def _contrast(
    one_of: Entrant, one: FinishedTrial, other_of: Entrant, other: FinishedTrial, key: str
) -> Contrast:
    """Row by row where both runs have the same rows."""
    a, b = one_of.run, other_of.run
    same = a.data_key is not None and a.data_key == b.data_key
    rows = same_rows(one_of.right.get(one.number), other_of.right.get(other.number)) if same else None
    return contrast(key, one.values[key], other.values[key], max(a.confidence, b.confidence), rows)


def _warnings(
    runs: Sequence[FinishedRun], labels: Sequence[str], objectives: Sequence[tuple[str, Direction]],
    targets: Sequence[Difference],
) -> list[str]:
    found, timed = [], [key for key, _ in objectives if is_of_the_target(key)]
    keys = {run.data_key for run in runs} if any(is_answers(key) for key, _ in objectives) else set()
    if timed and targets:
        fields = "; ".join(f"{d.where}: {d.told(labels)}" for d in targets)
        found.append(f"{', '.join(timed)}: measured on different targets ({fields}). Differences are not those of the "
                     "models alone.")
    if None in keys:
        found.append("It is not known whether the runs' rows are the same: accuracies may be of different rows.")
    elif len(keys) > 1:
        found.append("The runs' data differ (rows, prompts or tokens): accuracies may be of different rows, and "
                     "none are compared row by row.")
    if len({frozenset((c.objective, c.op, c.bound) for c in run.constraints) for run in runs}) > 1:
        found.append("The runs' limits differ: each front is of what meets its own.")
    return found
