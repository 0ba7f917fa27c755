"""The certificate: each finalist's limits held against intervals of what was measured anew, and what follows.

Pure: evidence in, verdicts out. certify.py gathers the evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotune.certifying.looks import METHOD, confidence_at
from autotune.constraints import Constraint, Verdict
from autotune.pareto import Miss
from autotune.stats import Measurement


@dataclass(frozen=True)
class Tested:
    """What a constraint is judged by: ``measured`` against ``bound``, in the constraint's own direction.

    For a relative constraint ``measured`` is a difference to, or a ratio with, the baseline, as ``what`` says.
    ``settle()`` calculates how many of what was ``counted`` ("test rows", "requests") would settle it in all.
    ``doubt`` is a sentence for why the interval is wider than what was measured, or open.
    """

    measured: Measurement
    bound: float
    what: str
    counted: str = ""
    settle: Callable[[], int | None] | None = None
    doubt: str | None = None


@dataclass(frozen=True)
class OnDevice:
    """One finalist on a further device: everything that was measured there, by key, and how its answers to the test
    ``rows`` compare with the target's: how many ``differ``, and how many were right there and ``on_target``."""

    values: Mapping[str, Measurement]
    timing: Mapping[str, Any]
    rows: int
    differ: int
    right: int
    on_target: int


@dataclass(frozen=True)
class Evidence:
    """What was measured of one finalist: every value by key, and what each constraint is judged by, by expression.

    ``devices`` are the further devices by name; their own values stand in ``values`` too, under ``KEY@NAME``.
    """

    values: Mapping[str, Measurement]
    tested: Mapping[str, Tested]
    timing: Mapping[str, Any] = field(default_factory=dict)
    logits: Mapping[str, Any] = field(default_factory=dict)
    devices: Mapping[str, OnDevice] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """One constraint of one finalist. ``needed`` is how many rows or requests in all would settle it."""

    constraint: Constraint
    tested: Tested
    verdict: Verdict
    needed: int | None = None


@dataclass(frozen=True)
class Look:
    """One finalist, judged with two-sided intervals of ``confidence``; ``problem``: why it could not be measured."""

    trial: int
    confidence: float
    verdict: Verdict
    held: tuple[Held, ...]
    evidence: Evidence | None
    problem: str | None = None


@dataclass(frozen=True)
class Certificate:
    """The looks in the order in which they were taken; ``trial`` is the one that is certified, or may be.

    ``verdict``: PASS when its constraints all hold, INCONCLUSIVE when some finalist's may, FAIL when none's do; then
    ``trial`` is None and ``miss`` the finalist that comes nearest, with ``relax_to``, the bound that it would hold.
    """

    verdict: Verdict
    trial: int | None
    confidence: float
    finalists: int
    looks: tuple[Look, ...]
    miss: Miss | None = None
    relax_to: float | None = None
    method: str = METHOD

    @property
    def chosen(self) -> Look | None:
        return next((look for look in self.looks if look.trial == self.trial), None)


def certify(
    finalists: Sequence[int], constraints: Sequence[Constraint], confidence: float,
    examine: Callable[[int, float], Evidence | str],
) -> Certificate:
    """Look at one finalist after the other until one's constraints all PASS.

    ``examine(trial, confidence)`` measures it and gives the evidence at that confidence, or the sentence that says
    why it could not be measured. The chance that a model is certified which does not hold its limits is at most
    (1 - ``confidence``) / 2, all looks together (`confidence_at`).
    """
    taken: list[Look] = []
    for number, trial in enumerate(finalists, start=1):
        level = confidence_at(number, len(finalists), confidence)
        taken.append(judge(trial, level, constraints, examine(trial, level)))
        if taken[-1].verdict == "PASS":
            return Certificate("PASS", trial, confidence, len(finalists), tuple(taken))
    open_ = next((look.trial for look in taken if look.verdict == "INCONCLUSIVE"), None)
    if open_ is not None:
        return Certificate("INCONCLUSIVE", open_, confidence, len(finalists), tuple(taken))
    miss, relax_to = _nearest(taken)
    return Certificate("FAIL", None, confidence, len(finalists), tuple(taken), miss, relax_to)


def judge(trial: int, confidence: float, constraints: Sequence[Constraint], evidence: Evidence | str) -> Look:
    """All constraints of one finalist. It PASSes when each does: an intersection-union test, which needs no
    correction for their number (Berger 1982, Technometrics 24:295).

    Raises:
        KeyError: the evidence lacks a constraint; a missing number never counts as met.
    """
    if isinstance(evidence, str):
        return Look(trial, confidence, "INCONCLUSIVE", (), None, evidence)
    held = tuple(_hold(c, evidence.tested[c.expr]) for c in constraints)
    verdicts = {h.verdict for h in held}
    verdict: Verdict = "FAIL" if "FAIL" in verdicts else "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts else "PASS"
    return Look(trial, confidence, verdict, held, evidence)


def _hold(constraint: Constraint, tested: Tested) -> Held:
    verdict = _plain(constraint, tested).verdict(tested.measured.low, tested.measured.high)
    unsettled = verdict == "INCONCLUSIVE" and not tested.doubt
    return Held(constraint, tested, verdict, tested.settle() if unsettled and tested.settle else None)


def _nearest(taken: Sequence[Look]) -> tuple[Miss | None, float | None]:
    """Of looks that all FAIL: the one with the least total violation, its worst limit, and the bound it would hold."""
    def total(look: Look) -> float:
        return sum(max(0.0, _over(h)) for h in look.held)

    if not taken:
        return None, None
    look = min(taken, key=lambda k: (total(k), k.trial))
    worst = max(look.held, key=_over)
    value = worst.tested.measured
    bound, op = worst.tested.bound, worst.constraint.op
    end = value.high if op == "<=" else value.low
    miss = Miss(look.trial, worst.constraint.expr, worst.constraint.objective, abs(value.value - bound), bound)
    return miss, end


def _over(held: Held) -> float:
    return _plain(held.constraint, held.tested).violation(held.tested.measured.value)


def _plain(constraint: Constraint, tested: Tested) -> Constraint:
    """The constraint on what it is judged by: a difference or ratio where it is relative."""
    return Constraint(constraint.expr, constraint.objective, constraint.op, tested.bound)
