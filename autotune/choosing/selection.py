"""Choosing anew from a finished run: its trials under any limits and policy, with nothing measured again. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from autotune import pareto
from autotune.comparing.contrast import Contrast, Right, contrast
from autotune.constraints import Constraint, Verdict, total_violation
from autotune.finished import FinishedRun, FinishedTrial, measurement
from autotune.pareto import Direction, Miss, Policy
from autotune.stats import Measurement
from objectives.base import is_answers

_SIGNIFICANT = 4


@dataclass(frozen=True)
class Held:
    """A limit and the value that is held against it; the verdict is the interval's, as the point estimate chose."""

    constraint: Constraint
    value: Measurement
    verdict: Verdict


@dataclass(frozen=True)
class Other:
    """A trial that could be had in place of the chosen one; ``contrasts`` are it less the chosen one, by objective.

    ``tied``: its answers are not told from the chosen one's. ``cheaper``: no worse in every objective that is not made
    of answers, and better in one.
    """

    trial: FinishedTrial
    contrasts: Mapping[str, Contrast]
    tied: bool
    cheaper: bool


@dataclass(frozen=True)
class Choice:
    """``front`` is in the policy's order, the chosen trial first. ``others`` are the rest of it, or, where there is
    none, the next best of the feasible trials, which the chosen one dominates."""

    trial: FinishedTrial
    held: tuple[Held, ...]
    front: tuple[int, ...]
    others: tuple[Other, ...]


@dataclass(frozen=True)
class Relaxed:
    """A limit, the trial that misses it and ``expr``, the same limit as the trial would meet it."""

    constraint: Constraint
    trial: int
    value: Measurement
    expr: str


@dataclass(frozen=True)
class Shortfall:
    """No trial fits. ``missed`` are all limits that the nearest trial misses, the worst first; ``single`` the least
    that each limit would have to give for some trial to fit, all others as they are: none where that is not enough."""

    miss: Miss
    missed: tuple[Relaxed, ...]
    single: tuple[Relaxed, ...]


@dataclass(frozen=True)
class Unknown:
    """What the search left off under the study's own limits, and these limits may let in: trials that it stopped
    before all rows were asked, adapters (by their place) that it stopped before their end or did not score
    everywhere, and deploy points that it dropped before training."""

    stopped: tuple[int, ...] = ()
    adapters: tuple[int, ...] = ()
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """Exactly one of ``choice`` and ``shortfall`` is there. ``feasible`` counts the complete trials that fit."""

    constraints: tuple[Constraint, ...]
    policy: Policy
    feasible: int
    choice: Choice | None
    shortfall: Shortfall | None
    unknown: Unknown


def choose(
    run: FinishedRun, constraints: Sequence[Constraint], policy: Policy, right: Mapping[int, Right]
) -> Selection:
    """Choose among the complete trials by their point estimates, as the search does.

    ``right`` are which rows each trial answered right, where that was kept. ``constraints`` have their numbers, and
    every complete trial a value for each (`other_limits.limits_for`).

    Raises:
        KeyError: a complete trial lacks an objective or a constrained value.
    """
    fits = [t for t in run.complete if pareto.feasible(t.candidate(), constraints)]
    unknown = _unknown(run, constraints)
    if not fits:
        return Selection(tuple(constraints), policy, 0, None, _shortfall(run.complete, constraints), unknown)
    front = pareto.front([t.candidate() for t in fits], run.objectives, ())
    ranked = _ranked([t for t in fits if t.number in front], run.objectives, policy)
    chosen, rest = ranked[0], ranked[1:]
    if not rest:
        rest = _ranked([t for t in fits if t is not chosen], run.objectives, policy)[:1]
    choice = Choice(chosen, tuple(_held(chosen, c) for c in constraints), tuple(t.number for t in ranked),
                    tuple(_other(run, chosen, t, right) for t in rest))
    return Selection(tuple(constraints), policy, len(fits), choice, None, unknown)


def _ranked(
    trials: Sequence[FinishedTrial], objectives: Sequence[tuple[str, Direction]], policy: Policy
) -> list[FinishedTrial]:
    by_number = {t.number: t for t in trials}
    return [by_number[n] for n in pareto.rank([t.candidate() for t in trials], objectives, policy)]


def _held(trial: FinishedTrial, constraint: Constraint) -> Held:
    value = trial.values[constraint.objective]
    return Held(constraint, value, constraint.verdict(value.low, value.high))


def _other(run: FinishedRun, chosen: FinishedTrial, other: FinishedTrial, right: Mapping[int, Right]) -> Other:
    rows = same_rows(right.get(other.number), right.get(chosen.number))
    contrasts = {key: contrast(key, other.values[key], chosen.values[key], run.confidence, rows)
                 for key, _ in run.objectives}
    answers = [key for key in contrasts if is_answers(key)]
    costs = [o for o in run.objectives if not is_answers(o[0])]
    cheaper = pareto.dominates(pareto.losses(other.candidate().values, costs),
                               pareto.losses(chosen.candidate().values, costs))
    return Other(other, contrasts, bool(answers) and not any(contrasts[key].settled for key in answers), cheaper)


def same_rows(first: Right | None, second: Right | None) -> tuple[Right, Right] | None:
    """Both, where both are known and of one length."""
    return (first, second) if first and second and len(first) == len(second) else None


def _shortfall(trials: Sequence[FinishedTrial], constraints: Sequence[Constraint]) -> Shortfall:
    miss = pareto.nearest_miss([t.candidate() for t in trials], constraints)
    assert miss is not None  # there are trials, and limits that none meets
    nearest = next(t for t in trials if t.number == miss.trial)
    missed = [c for c in constraints if not c.holds(nearest.values[c.objective].value)]
    missed.sort(key=lambda c: -c.violation(nearest.values[c.objective].value))
    single = [_least(trials, c, [o for o in constraints if o is not c]) for c in constraints]
    return Shortfall(miss, tuple(_relaxed(c, nearest) for c in missed), tuple(r for r in single if r))


def _least(trials: Sequence[FinishedTrial], constraint: Constraint, others: Sequence[Constraint]) -> Relaxed | None:
    """The trial that meets all other limits and comes nearest to this one."""
    fits = [t for t in trials if not total_violation(others, t.candidate().values)]
    if not fits:
        return None
    return _relaxed(constraint, min(fits, key=lambda t: (constraint.violation(t.values[constraint.objective].value),
                                                         t.number)))


def _relaxed(constraint: Constraint, trial: FinishedTrial) -> Relaxed:
    value = trial.values[constraint.objective]
    bound = rounded_out(value.value, constraint.op)
    return Relaxed(constraint, trial.number, value, f"{constraint.objective} {constraint.op} {bound}")


def rounded_out(value: float, op: str) -> str:
    """The value in a few digits, rounded to the side on which a limit ``op`` that text still lets it through."""
    exact = Decimal(repr(value))
    step = Decimal((0, (1,), exact.adjusted() - _SIGNIFICANT + 1))
    return f"{exact.quantize(step, ROUND_CEILING if op == '<=' else ROUND_FLOOR).normalize():f}"


def _unknown(run: FinishedRun, constraints: Sequence[Constraint]) -> Unknown:
    """Under the study's own limits there is none: what was left off could not have mattered."""
    if {(c.objective, c.op, c.bound) for c in constraints} == {(c.objective, c.op, c.bound) for c in run.constraints}:
        return Unknown()

    def may_fit(values: Mapping[str, Measurement]) -> bool:
        return all(c.holds(values[c.objective].value) for c in constraints
                   if c.objective in values and not is_answers(c.objective))

    stopped = tuple(t.number for t in run.trials if t.state == "PRUNED" and may_fit(t.values))
    dropped = tuple(d["label"] for d in run.document["dropped"]
                    if d["values"] and may_fit({k: measurement(v) for k, v in d["values"].items()}))
    adapters = tuple(a["number"] for a in run.document.get("adapters", ()) if a["state"] == "stopped" or a["skipped"])
    return Unknown(stopped, adapters, dropped)
