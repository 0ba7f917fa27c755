"""Limits that are put to a finished run: expressions checked against what the run measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotune.constraints import ACCEPTED, Constraint, parse
from autotune.errors import ConfigError, Problem, nearest
from autotune.finished import FinishedRun
from objectives.base import OBJECTIVES, SHARES, is_answers, name_of, on_device, parse_key, split_device
from objectives.latency import VALUES

_OPTION = "--require"


def limits_for(run: FinishedRun, required: Sequence[str], keep: bool = False) -> tuple[Constraint, ...]:
    """The limits to choose under, each with its number.

    Without ``required`` they are the study's own. With it they are these, and, if ``keep``, those of the study that
    none of these replaces: one on the same objective and the same side (``<=`` or ``>=``) does.

    Raises:
        ConfigError: with one Problem for each expression that cannot be held against this run's trials.
    """
    problems: list[Problem] = []
    measured = _measured(run)
    given = [found for expr in required if (found := _checked(run, expr, measured, problems))]
    own = () if required and not keep else _own(run, measured, problems)
    if problems:
        raise ConfigError(problems)
    replaced = {(c.objective, c.op) for c in given}
    kept = [c for c in own if (c.objective, c.op) not in replaced]
    return tuple({c.expr: c for c in (*kept, *given)}.values())


def _measured(run: FinishedRun) -> Mapping[str, int]:
    """How many of the complete trials have a value, by key.

    Raises:
        ConfigError: no trial is complete.
    """
    if not run.complete:
        raise ConfigError([Problem(str(run.root), "trials", "none is complete, so there is nothing to choose from",
                                   "a run with a complete trial")])
    keys = dict.fromkeys(key for trial in run.complete for key in trial.values)
    return {key: sum(key in trial.values for trial in run.complete) for key in keys}


def _checked(
    run: FinishedRun, expr: str, measured: Mapping[str, int], problems: list[Problem]
) -> Constraint | None:
    try:
        constraint = parse(expr)
    except ValueError as error:
        problems.append(Problem(_OPTION, "", str(error), ACCEPTED))
        return None
    constraint = _with_statistic(constraint, measured)
    key, everywhere = constraint.objective, [k for k, count in measured.items() if count == len(run.complete)]

    def wrong(found: str, accepted: str) -> None:
        problems.append(Problem(_OPTION, repr(constraint.expr), found, accepted))

    if key not in everywhere:
        wrong(f"{key} was measured in {measured[key]} of {len(run.complete)} complete trials" if key in measured
              else f"{key} was not measured{nearest(key, everywhere)}", ", ".join(everywhere))
        return None
    if not constraint.relative:
        if key in SHARES and not 0 <= constraint.bound <= 1:
            wrong(f"the bound {constraint.bound:g}", "a share from 0 to 1")
        return constraint
    baseline = baseline_value(run, key)
    if isinstance(baseline, str):
        wrong(baseline, "a number as the bound")
        return None
    return constraint.resolved({key: baseline})


def _with_statistic(constraint: Constraint, measured: Mapping[str, int]) -> Constraint:
    """A time without a statistic is its median, unless the run measured it under that very name."""
    key = constraint.objective
    plain, device = split_device(key)
    if key in measured or plain not in OBJECTIVES:
        return constraint
    objective, statistic = parse_key(key)
    full = on_device(f"{objective.name}.{statistic}", device)
    return parse(full + constraint.expr.removeprefix(key)) if statistic and full in measured else constraint


def baseline_value(run: FinishedRun, key: str) -> float | str:
    """What a bound relative to the baseline rests on in this run, or the sentence that says why it is not known."""
    for constraint in run.constraints:
        if constraint.objective == key and constraint.baseline is not None:
            return constraint.baseline
    workload = run.study.get("target", {}).get("workload", {})
    adapters_own = is_answers(key) or ("from" in workload and name_of(key) in VALUES)
    if adapters_own and run.study.get("baseline", "tuned") == "tuned":
        return (f"this run's baseline is its best adapter at the highest precision, whose {key} was not kept, as no "
                "limit of the study was relative to it")
    values = (run.document["baseline"] or {}).get("values", {})
    if key not in values:
        return f"{key} was not measured on this run's baseline"
    return float(values[key]["value"])


def _own(run: FinishedRun, measured: Mapping[str, int], problems: list[Problem]) -> tuple[Constraint, ...]:
    for constraint in run.constraints:
        place = str(run.root / "results.json")
        if constraint.relative and constraint.baseline is None:
            problems.append(Problem(place, f"constraints: {constraint.expr}", "its baseline was not measured, so that "
                                    "it has no number", "other limits, through --require"))
        elif measured.get(constraint.objective) != len(run.complete):
            problems.append(Problem(place, f"constraints: {constraint.expr}", f"{constraint.objective} is not known of "
                                    "every complete trial", "other limits, through --require"))
    return run.constraints
