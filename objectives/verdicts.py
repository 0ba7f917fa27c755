"""What a check of a bundle on a device comes to. Pure: answers and intervals in, verdicts out.

The rule for answers
    Kernels differ between processors, so a few answers may turn out otherwise than when the artifact was measured, and
    that is no fault. Of ``n`` sample rows let ``k`` be answered as then, and ``r`` rightly.

    PASS: the one-sided exact lower bound, at 95 %, for the share of rows that this device answers as then is at least
    90 %. (29 of 29, 46 of 47 or 62 of 64 reach it.) A device whose true share is lower passes with a chance of 5 %.

    FAIL: not so, and the accuracy is clearly below what was certified: the one-sided exact upper bound, at 95 %, for
    the share that it answers rightly lies below the lower end of the interval that was measured; and that is not the
    choice of rows, as on these very rows more answers turned wrong than turned right (exact sign test at 5 %; McNemar
    1947, Psychometrika 12:153).

    INCONCLUSIVE: neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from objectives.bundle import Limit, Sample
from objectives.exact import Interval, at_most, lower_bound, upper_bound

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]

#: The share of rows that are to be answered as when the artifact was measured, and how sure one must be of it.
AGREEMENT, SURE = 0.9, 0.95


@dataclass(frozen=True)
class Answers:
    """``agree`` of ``n`` rows have the answer that the measured artifact gave. ``right_before`` of its answers were
    right, ``right`` are here; ``chance`` is that of losing so many by changes that go either way. ``least_agreement``
    and ``most_right`` are the one-sided bounds, ``accuracy_low`` the lower end of what was measured, None where it has
    none."""

    verdict: Verdict
    n: int
    agree: int
    least_agreement: float
    right: int
    right_before: int
    most_right: float
    chance: float
    accuracy_low: float | None


@dataclass(frozen=True)
class Held:
    """A limit on this device. ``verdict`` is None where it cannot be judged here; ``note`` then says why."""

    limit: Limit
    verdict: Verdict | None
    found: Interval | None
    note: str = ""


def judge_answers(samples: Sequence[Sample], told: Sequence[str], accuracy_low: float | None) -> Answers:
    """Hold the answers ``told`` here against the sample rows, of which there is at least one."""
    n = len(samples)
    agree = sum(same(answer, s.answer) for s, answer in zip(samples, told, strict=True))
    here = [same(answer, s.expected) for s, answer in zip(samples, told, strict=True)]
    before = [same(s.answer, s.expected) for s in samples]
    lost = sum(b and not h for b, h in zip(before, here, strict=True))
    won = sum(h and not b for b, h in zip(before, here, strict=True))
    least, most = lower_bound(agree, n, SURE), upper_bound(sum(here), n, SURE)
    chance = at_most(won, lost + won, 0.5)
    verdict: Verdict = "INCONCLUSIVE"
    if least >= AGREEMENT:
        verdict = "PASS"
    elif accuracy_low is not None and most < accuracy_low and chance <= 1 - SURE:
        verdict = "FAIL"
    return Answers(verdict, n, agree, least, sum(here), sum(before), most, chance, accuracy_low)


def rows_to_pass() -> int:
    """The least number of sample rows with which answers can PASS: when all agree."""
    n = 1
    while lower_bound(n, n, SURE) < AGREEMENT:
        n += 1
    return n


def same(answer: str, other: str) -> bool:
    """White space around an answer does not matter."""
    return answer.strip() == other.strip()


def judge_limit(limit: Limit, found: Interval, note: str = "") -> Held:
    """The whole interval against the bound, which must be known; an open end settles nothing on its side."""
    if limit.bound is None:
        raise ValueError(f"{limit.expr} has no bound; accepted: a limit with its number")
    upper = limit.op == "<="
    worst, best = (found.high, found.low) if upper else (found.low, found.high)

    def holds(end: float, bound: float = limit.bound) -> bool:
        return end <= bound if upper else end >= bound

    verdict: Verdict = "INCONCLUSIVE"
    if worst is not None and holds(worst):
        verdict = "PASS"
    elif best is not None and not holds(best):
        verdict = "FAIL"
    return Held(limit, verdict, found, note)


def overall(verdicts: Iterable[Verdict | None]) -> Verdict:
    """FAIL where one is, else INCONCLUSIVE where one is; what was not judged has no part in it."""
    given = set(verdicts)
    return "FAIL" if "FAIL" in given else "INCONCLUSIVE" if "INCONCLUSIVE" in given else "PASS"
