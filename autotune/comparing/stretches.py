"""Over which budgets of a cost which of several fronts has the best to offer. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autotune.finished import FinishedTrial
from autotune.pareto import Direction, losses

#: A front's best trial within the budget, front by front; None where it has none.
Best = tuple[FinishedTrial | None, ...]
Objective = tuple[str, Direction]


@dataclass(frozen=True)
class Stretch:
    """Budgets from ``start`` up to, but without, ``end`` (None: without end), in the cost's own unit; for a cost that
    is to be maximized they go down.

    ``leaders`` are the fronts whose best trial within the budget is the best of all, several where they are equal.
    ``first`` and ``last`` are the best trials at both its ends. ``settled``: the leader is told apart from every
    other front that has a trial within the budget.
    """

    start: float
    end: float | None
    leaders: tuple[int, ...]
    first: Best
    last: Best
    settled: bool


def stretches(
    fronts: Sequence[Sequence[FinishedTrial]], gain: Objective, cost: Objective,
    settled: Callable[[int, FinishedTrial, int, FinishedTrial], bool],
) -> tuple[Stretch, ...]:
    """In ascending order of the budget; budgets that no front has a trial for are left out.

    ``settled(i, one, j, other)`` says whether a trial of front i and one of front j are told apart in ``gain``.
    """
    starts = sorted({_loss(trial, cost) for front in fronts for trial in front})
    found: list[Stretch] = []
    ends = [*starts[1:], None]
    for start, end in zip(starts, ends, strict=False):  # without any start there is one end
        best = tuple(_best(front, gain, cost, start) for front in fronts)
        leaders = _leaders(best, gain)
        now = Stretch(_own(start, cost), None if end is None else _own(end, cost), leaders, best, best,
                      _settled(best, leaders, settled))
        before = found[-1] if found else None
        if before and (before.leaders, before.settled, _present(before.last)) == (
                now.leaders, now.settled, _present(now.first)):
            found[-1] = Stretch(before.start, now.end, leaders, before.first, best, now.settled)
        else:
            found.append(now)
    return tuple(found)


def _loss(trial: FinishedTrial, objective: Objective) -> float:
    return losses(trial.candidate().values, [objective])[0]


def _own(loss: float, objective: Objective) -> float:
    """A loss as the objective's own value."""
    return -loss if objective[1] == "maximize" else loss


def _best(front: Sequence[FinishedTrial], gain: Objective, cost: Objective, budget: float) -> FinishedTrial | None:
    within = [t for t in front if _loss(t, cost) <= budget]
    return min(within, key=lambda t: (_loss(t, gain), _loss(t, cost), t.number), default=None)


def _leaders(best: Best, gain: Objective) -> tuple[int, ...]:
    found = {i: _loss(trial, gain) for i, trial in enumerate(best) if trial}
    return tuple(i for i, loss in found.items() if loss == min(found.values()))


def _settled(
    best: Best, leaders: Sequence[int], settled: Callable[[int, FinishedTrial, int, FinishedTrial], bool]
) -> bool:
    if len(leaders) > 1:
        return False
    leader = best[leaders[0]]
    assert leader is not None
    return all(settled(leaders[0], leader, i, other) for i, other in enumerate(best) if other and i != leaders[0])


def _present(best: Best) -> tuple[bool, ...]:
    return tuple(trial is not None for trial in best)
