"""The next piece of work of a search with fidelities: pure, the same for the same state.

One rule orders everything that could be done, scoring a pair, training an adapter on, beginning a new one: *the most
expected hypervolume per second*. An adapter's forecast (`search.forecast`) and the front so far give what finishing
it is expected to add to the front (`search.volume`); what is left of its training, judging and scoring is the cost.
So adapters stop and go on as in freeze-thaw optimization (Swersky, Snoek & Adams 2014, arXiv 1406.3896),
asynchronously and without brackets, as in ASHA (Li et al. 2018, arXiv 1810.05934), whose rule, the best third of each
rung goes on, knows neither how sure a ranking is nor what a deploy point costs; its multi-objective form (Schmucker
et al. 2021, arXiv 2106.12639) sorts by dominance (Deb et al. 2002), to which the expected hypervolume adds how much a
place on the front is worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from autotune.search.path import Path, paths
from autotune.search.rungs import Finish, Plan, Propose, Score, State, Stop, Train, Wait, Work
from autotune.search.schedule import may_train, spent_up
from autotune.search.settling import none_allowed, settled, where_stopped
from autotune.search.view import View

#: Once the first result is there, so many adapters are begun before any other is trained on: the picture of what they
#: differ by.
FIRST = 4
#: Of those that wait at their first rung this share goes on before more are begun (the reduction factor of ASHA): what
#: is new always promises something, and a search that only begins ends with nothing.
REDUCTION = 3
#: The search may end for want of expected gain once so many adapters were proposed and so many reached their last rung.
ENOUGH_ADAPTERS, ENOUGH_FINISHED = 8, 2
#: Twice the time has to be expected to add this share to the front's hypervolume, and less time less.
WORTH = 0.25


@dataclass(frozen=True)
class Option:
    """Work that could be done: expected hypervolume, the seconds it takes to get it, and the shortest useful part's."""

    work: Work
    gain: float
    seconds: float
    hope: float

    @property
    def order(self) -> tuple[float, float]:
        """More is better. Where nothing can be expected to meet the limits, the nearest miss is looked for."""
        return self.gain / max(self.seconds, 1e-9), self.hope


def next_work(state: State, plan: Plan) -> Work:
    """What to do next. Call it anew after each piece of work, with what came of it in ``state``.

    With several workers, call it for each that is free, with the pieces in flight in ``state``: it gives one that goes
    beside them. What ends the search ends it once they have ended: `Wait` until then.
    """
    if over := _over(state, plan):
        return _end(state, over)
    view = View.of(state, plan)
    if decided := settled(view):
        return decided
    if nowhere := none_allowed(view):
        return _end(state, Finish(nowhere))
    possible = list(_options(view))
    fitting = [o for o in possible if view.fits(o.work)]
    if not fitting:
        return _end(state, _why_none(view, bool(possible)))
    best = max(fitting, key=lambda o: o.order)
    if not isinstance(best.work, Score) and (idle := _idle(view, possible)):
        if len(view.finished) >= ENOUGH_FINISHED:
            return _end(state, Finish(idle))
        # What rungs are worth is told by adapters that were scored; whichever is nearest to that comes first.
        best = max(fitting, key=lambda o: (_nearness(o.work), o.order))
    if isinstance(best.work, Train) and (stop := _not_worth_it(view, best)):
        return Wait() if state.in_flight else stop  # what is in flight may still change what is worth doing
    return best.work


def _end(state: State, end: Finish) -> Work:
    """What is in flight may still change what is worth doing."""
    return Wait() if state.in_flight else end


def _over(state: State, plan: Plan) -> Finish | None:
    begun = sum(isinstance(work, Score) for work in state.in_flight)
    spent = replace(state.spent, trials=state.spent.trials + begun, seconds=state.spent.seconds + plan.costs.reserve)
    if over := spent_up(replace(plan.budget, time_s=None), spent):
        return Finish(over)
    over = spent_up(plan.budget, spent)
    return Finish(over, out_of_time=True) if over else None


def _options(view: View) -> Iterator[Option]:
    ways = _free(view)
    starting = len(view.alive) + len(view.ended) < FIRST
    wanted = starting or _waiting(view) < REDUCTION * max(1, _gone_on(view))
    fresh = view.fresh() if wanted and not _first_on_its_way(view, ways) else 0
    if fresh and starting and view.fits(Propose(fresh)):
        yield from _scores(view)
        yield _propose(view, fresh)
        return
    if beginning := [n for n, p in ways.items() if p.rung == 0 and not view.trained(n)]:
        # What was proposed is begun before anything else: its first rung is what the proposal was counted on.
        work = _together(view, beginning, _last(view) if _only(view) else 0)
        yield Option(work, 1.0, 1.0, 0.0)
        if view.fits(work):
            return
        fresh = 0  # those that wait do so for want of time
    yield from _scores(view)
    yield from _trainings(view, ways)
    if fresh:
        yield _propose(view, fresh)


def _together(view: View, numbers: Sequence[int], rung: int) -> Train:
    """Of these, best first, as many as train together and have the time for it; where none has, the best."""
    pack = ([n for n in numbers if view.fits(Train((n,), rung))] or list(numbers[:1]))[:view.plan.width]
    while len(pack) > 1 and not view.fits(Train(tuple(pack), rung)):
        pack.pop()
    return Train(tuple(pack), rung)


def _free(view: View) -> dict[int, Path]:
    """The ways of adapters that no worker trains on just now."""
    return {number: path for number, path in paths(view).items() if number not in view.training}


def _first_on_its_way(view: View, ways: Mapping[int, Path]) -> bool:
    """Whether nothing was scored yet, and an adapter that may be waits for a worker: the first ones, the best guess
    there is, go to their end before others are begun. That gives a front from the start, and what rungs tell of an
    end is learned by seeing one."""
    return not view.finished and (bool(ways) or any(view.open_points(n) for n in view.at_last_rung))


def _waiting(view: View) -> int:
    """Adapters that were not trained past their first rung, nor are."""
    return sum(len(a.rungs) <= 1 < len(view.plan.rungs) and a.number not in view.going_on for a in view.alive)


def _gone_on(view: View) -> int:
    """Adapters that were trained past their first rung, or are."""
    return sum(len(a.rungs) > 1 or a.number in view.going_on for a in view.state.adapters)


def _only(view: View) -> bool:
    """Whether there is but one adapter and will be: nothing that a rung tells of it could change what is done."""
    return len(view.state.adapters) == 1 and not view.fresh()


def _last(view: View) -> int:
    return len(view.plan.rungs) - 1


def _scores(view: View) -> Iterator[Option]:
    for number in view.at_last_rung:
        for label in view.open_points(number):
            gain, hope = view.gain(number, only=label), view.hope(number, only=label)
            yield Option(Score(number, label), gain, view.score_s(label), hope)


def _trainings(view: View, ways: Mapping[int, Path]) -> Iterator[Option]:
    by_rung: dict[int, list[tuple[int, Path]]] = {}
    for number, path in ways.items():
        if path.rung or view.trained(number):
            by_rung.setdefault(path.rung, []).append((number, path))
    for rung, members in by_rung.items():
        ranked = sorted(members, key=lambda m: (-view.gain(m[0]) / m[1].seconds, -view.hope(m[0]), m[0]))
        work = _together(view, [number for number, _ in ranked], rung)
        # What trains together costs as one, and the first of the pack decides.
        number, path = work.numbers[0], ways[work.numbers[0]]
        seconds = path.seconds - path.next_s * (1 - 1 / len(work.numbers))
        yield Option(work, view.gain(number), seconds, view.hope(number))


def _propose(view: View, count: int) -> Option:
    return Option(Propose(count), view.gain(None), view.new_s(), view.hope(None))


def _idle(view: View, options: list[Option]) -> str | None:
    """The sentence that ends a search which is not expected to move the front any more."""
    least = view.plan.least_gain
    if not (least and view.now > 0 and len(view.state.adapters) >= ENOUGH_ADAPTERS):
        return None
    # A new adapter is asked for even where others have to go on first.
    gains = [o.gain for o in options] + ([view.gain(None)] if view.fresh() else [])
    share = max(gains) / view.now
    if share >= least:
        return None
    return (f"more search is not expected to move the front: the best next adapter adds {100 * share:.2f} % to its "
            f"hypervolume, less than {100 * least:g} %")


def _nearness(work: Work) -> float:
    if isinstance(work, Score):
        return math.inf
    return work.rung if isinstance(work, Train) else -1


def _not_worth_it(view: View, best: Option) -> Stop | None:
    """Where adapters are what is limited, time is not for the taking: the best that is left stops where it is expected
    to add less than a share of what it takes of the time so far. A search with a time budget uses that up instead."""
    plan = view.plan
    assert isinstance(best.work, Train)
    number = best.work.numbers[0]
    if view.fresh() or plan.budget.time_s is not None or not (plan.least_gain and view.now > 0 and view.finished):
        return None
    gain, takes = best.gain / view.now, best.seconds / view.spent_s
    if not view.trained(number) or gain >= WORTH * takes:
        return None
    return Stop(number, f"{where_stopped(view, number)}, which is expected to add {100 * gain:.1f} % to the front's "
                        f"hypervolume for {100 * takes:.0f} % more of the search's time")


def _why_none(view: View, anything: bool) -> Finish:
    budget = view.plan.budget
    if anything and budget.time_s is not None:
        left = max(0.0, view.left_s)
        return Finish(f"the time budget of {budget.time_s:.0f} s is used up: {left:.0f} s are left for the search, and "
                      "nothing more would be finished in them", out_of_time=True)
    if view.state.exhausted:
        return Finish("every adapter of the space has been tried")
    return Finish(may_train(budget, view.state.spent) or "nothing is left to do")
