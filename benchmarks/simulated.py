"""What the simulated studies share: drawing answers, the real functions as tables, and what came of it as Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from autotune.constraints import Constraint

CONFIDENCE = 0.95
#: So many standard errors of a simulated share are forgiven: several dozen shares are looked at.
ERRORS = 3
Numbers = NDArray[Any]
Interval = Callable[[Numbers, Numbers, float], tuple[Numbers, Numbers]]


@dataclasses.dataclass
class Section:
    """Lines of Markdown, and the promises that did not hold."""

    title: str
    lines: list[str] = dataclasses.field(default_factory=list)
    broken: list[str] = dataclasses.field(default_factory=list)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.lines += ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
        self.lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
        self.lines.append("")

    def promise(self, holds: bool, said: str) -> None:
        if not holds:
            self.broken.append(f"{self.title}: {said}")

    def at_least(self, share: float, promised: float, studies: int, what: str) -> None:
        least = promised - ERRORS * standard_error(promised, studies)
        self.promise(share >= least, f"{what}: {share:.4f}, promised at least {promised} (accepted from {least:.4f})")

    def at_most(self, share: float, promised: float, studies: int, what: str) -> None:
        most = promised + ERRORS * standard_error(promised, studies)
        self.promise(share <= most, f"{what}: {share:.4f}, promised at most {promised} (accepted to {most:.4f})")


def standard_error(share: float, studies: int) -> float:
    return float(np.sqrt(share * (1 - share) / studies))


def shown(hits: Numbers) -> str:
    """A share of studies with the half-width of its own 95 % interval."""
    share = float(np.mean(hits))
    return f"{share:.3f} ± {1.96 * standard_error(share, len(hits)):.3f}"


def ends(interval: Interval, n: int, confidence: float = CONFIDENCE) -> tuple[Numbers, Numbers]:
    """Both ends for 0 … n successes, so that a simulated number of successes looks its interval up."""
    return interval(np.arange(n + 1), np.full(n + 1, n), confidence)


def passes(interval: Interval, n: int, limit: Constraint, confidence: float) -> Numbers:
    """For 0 … n successes whether the limit PASSes."""
    return verdicts(*ends(interval, n, confidence), limit) == "PASS"


def verdicts(low: Numbers, high: Numbers, limit: Constraint) -> Numbers:
    return np.array([limit.verdict(*both) for both in zip(low.tolist(), high.tolist(), strict=True)])


def right_counts(rng: np.random.Generator, studies: int, trials: int, n: int, rate: float, shared: float) -> Numbers:
    """Right answers [studies, trials] of n rows, each trial's true accuracy being ``rate``.

    ``shared`` is the part of a row's latent difficulty that is the same for all trials of a study, as rows hard for
    one adapter are hard for another: two trials' difficulties of a row correlate by it. 0: trials are independent.
    """
    if not shared:
        return rng.binomial(n, rate, (studies, trials))
    latent, found = scipy_stats.norm.ppf(rate), np.empty((studies, trials), int)
    for at in range(0, studies, 100):
        part = found[at:at + 100]
        difficulty = rng.standard_normal((len(part), 1, n))
        chance = scipy_stats.norm.cdf((latent - np.sqrt(shared) * difficulty) / np.sqrt(1 - shared))
        part[:] = (rng.random((len(part), trials, n), np.float32) < chance.astype(np.float32)).sum(axis=2)
    return found


def flags(both: int, only_first: int, only_second: int, neither: int) -> tuple[Numbers, Numbers]:
    """Per-row right and wrong of two trials with these counts."""
    times = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], times), np.repeat([True, False, True, False], times)
