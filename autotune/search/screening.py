"""Deploy points before any training: measured on base weights, and dropped where they cannot meet the limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotune.constraints import Constraint
from autotune.errors import StageError
from autotune.pareto import Candidate, Miss, nearest_miss
from autotune.report.wording import show
from autotune.search.scoring import Scorer
from autotune.trials import Dropped, Screened, Screening, doubts
from objectives.base import name_of, split_device
from objectives.latency import VALUES
from search_spaces.deploy import DeployParams


def screen(
    points: Sequence[DeployParams], constraints: Sequence[Constraint], scorer: Scorer, say: Callable[[str], None]
) -> Screening:
    """Measure every point; those whose interval lies beyond a limit, or that cannot be built, are dropped.

    Raises StageError where no point could be measured at all.
    """
    kept: list[Screened] = []
    dropped: list[Dropped] = []
    last: StageError | None = None
    for point in points:
        try:
            found = scorer.screen(point)
        except StageError as error:
            last = error
            dropped.append(Dropped(point, f"{error.stage}: {error.reason}"))
        else:
            for device, why in doubts(found.timed, found.elsewhere).items():
                say(f"the latency of {point.label}{device and f' on {device}'} is not steady: {why}")
            reasons = broken(found, constraints)
            if not reasons:
                kept.append(found)
                continue
            dropped.append(Dropped(point, f"no adapter can save it: {'; '.join(reasons)}", found))
        say(f"{point.label} is dropped: {dropped[-1].reason}")
    if not kept and last is not None and not any(d.screened for d in dropped):
        raise last
    return Screening(tuple(kept), tuple(dropped), None if kept else _miss(dropped, constraints))


def broken(found: Screened, constraints: Sequence[Constraint]) -> list[str]:
    """A sentence for each limit that the point fails on what it was measured on, by the whole interval.

    A latency from a machine that was disturbed or drifting is no evidence against it.
    """
    sentences = []
    unsteady = doubts(found.timed, found.elsewhere)
    for constraint in constraints:
        value = found.values.get(constraint.objective)
        plain, device = split_device(constraint.objective)
        if device in unsteady and name_of(plain) in VALUES:
            continue
        if value is not None and constraint.verdict(value.low, value.high) == "FAIL":
            unit = f" {value.unit}" if value.unit else ""
            where = f"on {device} with the base model" if device else "on the base model"
            sentences.append(f"{plain} is {show(value, True)}{unit} {where} (n = {value.n}), where {constraint.expr}")
    return sentences


def _miss(dropped: Sequence[Dropped], constraints: Sequence[Constraint]) -> Miss | None:
    measured = [
        Candidate(i, {key: m.value for key, m in d.screened.values.items()})
        for i, d in enumerate(dropped) if d.screened
    ]
    known = [c for c in constraints if all(c.objective in m.values for m in measured)]
    return nearest_miss(measured, known)
