"""The order of work: adapters begun, promoted, scored, stopped, and the end; made-up curves, no training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotune.constraints import parse
from autotune.search.next_work import FIRST, next_work
from autotune.search.rungs import Costs, Finish, Outcome, Propose, Score, Skip, Stop, Train, Wait, Work
from autotune.search.schedule import Budget
from tests.searching import POINTS, STEPS, Search, adapter, make_plan, scored, state

GOOD, BAD = 0.78, 0.62


def test_the_first_adapter_gives_a_result_before_any_other_is_begun() -> None:
    search = Search(make_plan(), lambda n: 0.7)
    search.run()
    assert search.done[:2] == [Propose(1), Train((0,), 0)]
    before = search.done[:search.done.index(Propose(1), 1)]
    assert [w for w in before if isinstance(w, Score)]
    assert {w.numbers for w in before if isinstance(w, Train)} == {(0,)}


def test_where_the_first_adapter_fails_another_is_begun() -> None:
    failed = replace(adapter(0), stopped="training failed: CUDA error")
    assert next_work(state(failed), make_plan()) == Propose(1)


def test_a_picture_of_several_comes_before_a_second_one_is_trained_on() -> None:
    search = Search(make_plan(), lambda n: 0.7)
    search.run()
    on = next(i for i, w in enumerate(search.done) if isinstance(w, Train) and w.numbers != (0,) and w.rung > 0)
    begun = {n for w in search.done[:on] if isinstance(w, Train) for n in w.numbers}
    assert len(begun) >= FIRST


def test_the_better_curve_is_trained_on() -> None:
    begun = [adapter(n, (0.2,), quality) for n, quality in enumerate((0.6, 0.65, GOOD, 0.55))]
    work = next_work(state(*begun), make_plan(budget=Budget(4, None, None)))
    assert work == Train((2,), 1)


def test_an_adapter_is_judged_once_and_then_goes_to_its_end_while_there_is_none_to_compare_it_with() -> None:
    alone, plan = adapter(0, (0.2,), 0.7), make_plan(budget=Budget(6, None, None))
    assert next_work(state(alone), plan) == Train((0,), 2)
    others = [adapter(n, (0.2,), 0.6 + 0.01 * n) for n in (1, 2, 3)]
    assert next_work(state(alone, *others), plan) == Train((0,), 1)


def test_a_search_finds_the_best_adapter_with_little_of_the_others_training() -> None:
    qualities = [0.62, 0.66, 0.64, 0.7, 0.6, 0.61, 0.79, 0.63, 0.65, 0.58, 0.62, 0.6]
    search = Search(make_plan(least_gain=0.0), lambda n: qualities[n])
    search.run()
    assert search.best()["fp16"] == pytest.approx(0.79) or search.best()["int8"] == pytest.approx(0.79)
    finished = [n for n, a in search.adapters.items() if len(a.rungs) == 3]
    assert 6 in finished
    assert len(finished) < len(qualities) / 2
    assert [n for n, a in search.adapters.items() if a.stopped]


def test_work_is_the_same_for_the_same_state_so_a_killed_search_goes_on_as_it_was() -> None:
    def quality(n: int) -> float:
        return 0.6 + 0.19 * ((n * 7) % 11) / 11

    whole = Search(make_plan(), quality)
    whole.run()
    for cut in range(0, len(whole.done), 5):
        again = Search(make_plan(), quality)
        for work in whole.done[:cut]:
            again.carry_out(work)
        assert next_work(again.state(), again.plan) == whole.done[cut]


def test_without_rungs_every_adapter_is_trained_in_one_go() -> None:
    search = Search(make_plan((1.0,), Budget(5, None, None), least_gain=0.0), lambda n: 0.65 + 0.02 * n)
    reason = search.run()
    assert reason == "the budget of 5 adapters is used up"
    assert not [w for w in search.done if isinstance(w, Stop)]
    assert all(len(a.rungs) == 1 and len(a.scored) == 3 for a in search.adapters.values())


def test_adapters_that_train_together_at_one_cost_are_begun_and_promoted_together() -> None:
    search = Search(make_plan(budget=Budget(16, None, None), width=8), lambda n: 0.6 + 0.012 * n)
    search.run()
    assert search.done[:2] == [Propose(8), Train(tuple(range(8)), 0)]
    assert any(len(w.numbers) > 1 for w in search.done if isinstance(w, Train) and w.rung > 0)
    assert all(len(w.numbers) <= 8 for w in search.done if isinstance(w, Train))
    assert len(search.adapters) <= 16


@pytest.mark.parametrize("seconds", [150, 400, 900, 1500, 3000])
def test_a_time_budget_is_never_overrun_and_used_as_long_as_something_can_be_finished(seconds: float) -> None:
    plan = make_plan(budget=Budget(None, None, seconds), least_gain=0.0)
    plan = replace(plan, costs=replace(plan.costs, reserve=60.0))
    search = Search(plan, lambda n: 0.6 + 0.18 * ((n * 5) % 13) / 13)
    reason = search.run()
    assert f"time budget of {seconds:.0f} s" in reason
    assert search.seconds + 60 <= seconds
    # An adapter from its beginning to its first score takes 135 s.
    assert seconds - 60 - search.seconds < 140


@pytest.mark.parametrize("seconds", [400, 900, 1500, 3000])
def test_adapters_that_share_the_time_of_their_training_overrun_no_budget_either(seconds: float) -> None:
    plan = make_plan(budget=Budget(None, None, seconds), least_gain=0.0, width=8)
    search = Search(plan, lambda n: 0.6 + 0.18 * ((n * 5) % 13) / 13)
    search.run()
    assert search.seconds <= seconds
    assert any(len(w.numbers) == 8 for w in search.done if isinstance(w, Train))


def test_a_pack_is_as_large_as_the_time_for_judging_one_after_the_other_allows() -> None:
    plan = make_plan(budget=Budget(None, None, 210.0), width=8)
    begun = [adapter(n) for n in range(8)]
    # 100 s of training, 20 s of a second judgement of its own, 15 s of scoring and 10 s for each one that is judged.
    assert next_work(state(*begun, seconds=50.0), plan) == Train((0, 1, 2), 0)


def test_one_that_the_time_is_too_short_for_hides_none_that_it_is_enough_for() -> None:
    done = adapter(0, (0.2, 0.4, 1.0), GOOD, scored=scored(GOOD, *POINTS))
    long = replace(adapter(1, (0.2,), GOOD + 0.1), steps=3 * STEPS)
    short = adapter(2, (0.2,), GOOD)
    plan = make_plan(budget=Budget(3, None, 1000.0), least_gain=0.0)
    assert next_work(state(done, long, short, seconds=500.0), plan).numbers == (1,)  # type: ignore[union-attr]
    assert next_work(state(done, long, short, seconds=860.0), plan).numbers == (2,)  # type: ignore[union-attr]


def test_while_one_waits_for_want_of_time_no_further_one_is_proposed() -> None:
    done = [adapter(n, (1.0,), GOOD, scored=scored(GOOD, *POINTS)) for n in range(3)]
    plan = make_plan((1.0,), Budget(None, None, 1000.0), least_gain=0.0)
    end = next_work(state(*done, replace(adapter(3), steps=3 * STEPS), seconds=800.0), plan)
    assert isinstance(end, Finish)
    assert end.out_of_time


@pytest.mark.parametrize("budget", [Budget(None, 20, None), Budget(20, None, None), Budget(None, None, 1e5)])
def test_where_no_point_meets_the_limits_by_itself_one_adapter_tells_the_nearest_miss(budget: Budget) -> None:
    search = Search(make_plan(budget=budget, constraints=[parse("latency_ms.p50 <= 25")]), lambda n: GOOD)
    reason = search.run()
    assert reason.startswith("no deploy point meets the limits by itself: ")
    assert "int8 has latency_ms.p50 40, where latency_ms.p50 <= 25" in reason
    assert len(search.adapters) == 1
    assert any(isinstance(w, Score) for w in search.done)


def test_before_a_search_ends_for_want_of_gain_a_new_adapter_is_asked_for_too() -> None:
    """Two are done and six wait, of which none may reach the front; a better one may still be proposed."""
    done = [adapter(n, (0.2, 0.4, 1.0), GOOD, scored=scored(GOOD, *POINTS)) for n in range(2)]
    waiting = [adapter(n, (0.2,), 0.66) for n in range(2, 8)]
    plan = make_plan(budget=Budget(30, None, None))
    assert not isinstance(next_work(state(*done, *waiting), plan), Finish)


def test_nothing_is_expected_above_a_share_of_one() -> None:
    perfect = [adapter(n, (0.2, 0.4, 1.0), 1.0, scored={p: Outcome("COMPLETE", {"accuracy": 1.0, **POINTS[p]})
                                                        for p in POINTS}) for n in range(2)]
    good = [adapter(n, (0.2,), 0.97) for n in range(2, 8)]
    search = Search(make_plan(budget=Budget(30, None, None)), lambda n: 0.97)
    search.adapters = {a.number: a for a in (*perfect, *good)}
    assert "at most 1.000" not in search.run(200)
    assert len(search.adapters) == 8
    assert all(a.stopped for a in search.adapters.values() if a.number > 1)


def test_shortly_before_the_end_a_short_piece_is_done_and_no_long_one_begun() -> None:
    done = adapter(0, (0.2, 0.4, 1.0), GOOD, scored=scored(GOOD, "int8"))
    begun = [adapter(n, (0.2,), GOOD + 0.05) for n in (1, 2, 3)]
    plan = make_plan(budget=Budget(None, None, 1000))
    whole = replace(done, scored=scored(GOOD, "fp16", "int8", "int4"))
    assert isinstance(next_work(state(whole, *begun, seconds=500), plan), Train)
    assert next_work(state(done, *begun, seconds=980), plan) == Score(0, "int4")
    late = next_work(state(done, *begun, seconds=995), plan)
    assert isinstance(late, Finish)
    assert "5 s are left" in late.reason


def test_what_is_not_known_to_take_long_holds_nothing_back() -> None:
    plan = make_plan(budget=Budget(None, None, 30), costs=Costs())
    assert next_work(state(), plan) == Propose(1)
    assert next_work(state(*[adapter(n) for n in range(FIRST)]), plan) == Train((0,), 0)
    trained = adapter(0, (0.2, 0.4, 1.0), GOOD)
    assert isinstance(next_work(state(trained, *[adapter(n, (0.2,)) for n in (1, 2, 3)]), plan), Score)


def test_the_budgets_of_adapters_and_trials_end_a_search_by_their_names() -> None:
    few = Search(make_plan(budget=Budget(3, None, None), least_gain=0.0), lambda n: 0.7)
    assert few.run() == "the budget of 3 adapters is used up"
    assert len(few.adapters) == 3
    trials = Search(make_plan(budget=Budget(None, 4, None)), lambda n: 0.65 + 0.02 * (n % 5))
    assert trials.run() == "the budget of 4 trials is used up"
    assert sum(isinstance(w, Score) for w in trials.done) == 4


def test_an_exhausted_space_ends_a_search() -> None:
    search = Search(make_plan(budget=Budget(None, None, None), least_gain=0.0), lambda n: 0.7, space=5)
    assert search.run() == "every adapter of the space has been tried"
    assert len(search.adapters) == 5


def test_a_search_that_gains_nothing_more_says_so_after_a_minimum() -> None:
    search = Search(make_plan(budget=Budget(None, None, None)), lambda n: GOOD if n == 2 else 0.5)
    reason = search.run()
    assert "more search is not expected to move the front" in reason
    assert 8 <= len(search.adapters) < 60


def test_while_nothing_meets_the_limits_the_nearest_misses_are_looked_for() -> None:
    search = Search(make_plan(budget=Budget(8, None, None)), lambda n: 0.4 + 0.02 * n)
    search.run()
    assert max(search.best().values()) == pytest.approx(0.54)  # the last adapter's, which is the best


def test_failures_are_out_and_count() -> None:
    failed = adapter(0, stopped="train: the loss is not finite")
    search = Search(make_plan(budget=Budget(3, None, None)), lambda n: 0.7, adapters={0: failed})
    search.run()
    assert not any(isinstance(w, Train) and 0 in w.numbers for w in search.done)
    assert len(search.adapters) == 3


def test_tasks_without_right_and_wrong_are_ranked_by_loss() -> None:
    qualities = [0.62, 0.66, 0.64, 0.78, 0.6, 0.61, 0.7, 0.63]
    search = Search(make_plan(budget=Budget(8, None, None), least_gain=0.0), lambda n: qualities[n], generates=True)
    search.run()
    promoted = [w.numbers[0] for w in search.done if isinstance(w, Train) and w.rung == 2]
    assert promoted[:2] == [0, 3]  # the first adapter goes to its end in any case
    stopped = [w for w in search.done if isinstance(w, Stop)]
    assert all("validation loss" in w.reason for w in stopped)


def test_every_decision_is_a_sentence_with_its_evidence() -> None:
    done = [adapter(n, (0.2, 0.4, 1.0), GOOD, scored=scored(GOOD, "fp16", "int8", "int4")) for n in (0, 1)]
    stopped = next_work(state(*done, adapter(2, (0.2,), 0.3)), make_plan())
    assert isinstance(stopped, Stop)
    assert stopped.reason.startswith("stopped at 1/5 of its steps: 12 of 64 rows right as fp16, at most 0.")
    assert "where the front has 0.7" in stopped.reason
    weak = adapter(3, (0.2, 0.4, 1.0), BAD, scored=scored(BAD, "int4"))
    skipped = next_work(state(*done, weak), make_plan())
    assert isinstance(skipped, Skip)
    assert skipped.reason.startswith("not scored: after 1 deploy point at most 0.")


def test_the_only_adapter_is_trained_in_one_go_as_nothing_it_shows_could_change_what_is_done() -> None:
    assert next_work(state(adapter(0)), make_plan(budget=Budget(1, None, None))) == Train((0,), 2)
    assert next_work(state(adapter(0), adapter(1)), make_plan(budget=Budget(2, None, None))) == Train((0,), 0)


def test_without_skips_every_trained_adapter_is_scored_everywhere() -> None:
    search = Search(make_plan(budget=Budget(6, None, None), least_gain=0.0, skips=False), lambda n: 0.8 - 0.05 * n)
    search.run()
    assert not [w for w in search.done if isinstance(w, Skip)]
    assert all(len(a.scored) == 3 for a in search.adapters.values() if len(a.rungs) == 3)


def test_beside_pieces_in_flight_others_are_begun_and_none_twice() -> None:
    plan = make_plan(budget=Budget(4, None, None))
    begun = state(*[adapter(n) for n in range(4)])
    assert next_work(begun, plan) == Train((0,), 0)
    assert next_work(replace(begun, in_flight=(Train((0,), 0),)), plan) == Train((1,), 0)
    last = replace(begun, in_flight=tuple(Train((n,), 0) for n in range(4)))
    assert next_work(last, plan) == Wait()


def test_pairs_of_one_adapter_are_scored_side_by_side() -> None:
    found: list[Work] = []
    trained = state(adapter(0, (0.2, 0.4, 1.0), GOOD))
    for _ in POINTS:
        work = next_work(replace(trained, in_flight=tuple(found)), make_plan(budget=Budget(1, None, None)))
        assert isinstance(work, Score)
        found.append(work)
    assert {w.label for w in found if isinstance(w, Score)} == set(POINTS)
    assert next_work(replace(trained, in_flight=tuple(found)), make_plan(budget=Budget(1, None, None))) == Wait()


def test_an_adapter_that_is_trained_on_is_not_begun_with_again() -> None:
    begun = state(*[adapter(n, (0.2,), quality) for n, quality in enumerate((0.6, 0.65, GOOD, 0.55))])
    plan = make_plan(budget=Budget(4, None, None))
    assert next_work(begun, plan) == Train((2,), 1)
    beside = next_work(replace(begun, in_flight=(Train((2,), 1),)), plan)
    assert isinstance(beside, Train)
    assert 2 not in beside.numbers


def test_what_is_trained_on_just_now_does_not_wait_and_has_gone_on() -> None:
    begun = state(*[adapter(n, (0.2,), quality) for n, quality in enumerate((0.6, 0.65, GOOD, 0.55))])
    flying: list[Work] = []
    while not isinstance(work := next_work(replace(begun, in_flight=tuple(flying)), make_plan()), Propose | Wait):
        flying.append(work)
    assert flying[0] == Train((2,), 1)  # of four that wait one has to go on before a fifth is begun
    assert isinstance(work, Propose)


def test_no_adapter_is_stopped_for_its_time_while_another_may_still_change_what_it_is_worth() -> None:
    best = adapter(0, (0.2, 0.4, 1.0), 0.8, scored=scored(0.8, "fp16", "int8", "int4"))
    others = [adapter(n, (0.2,), quality) for n, quality in ((1, 0.74), (2, 0.7))]
    plan = make_plan(budget=Budget(3, None, None))
    assert isinstance(next_work(state(best, *others), plan), Stop)
    assert next_work(replace(state(best, *others), in_flight=(Train((1,), 1),)), plan) == Wait()


def test_a_trial_in_flight_counts_against_the_budget_and_the_end_waits_for_it() -> None:
    plan = make_plan(budget=Budget(4, 1, None))
    trained = state(adapter(0, (0.2, 0.4, 1.0), GOOD))
    assert next_work(replace(trained, in_flight=(Score(0, "fp16"),)), plan) == Wait()
    done = state(adapter(0, (0.2, 0.4, 1.0), GOOD, scored=scored(GOOD, "fp16")))
    assert isinstance(next_work(done, plan), Finish)


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_several_workers_come_to_an_end_with_every_piece_done_once(workers: int) -> None:
    search = Search(make_plan(budget=Budget(8, None, None)), lambda n: 0.6 + 0.19 * ((n * 7) % 11) / 11)
    flying: list[Work] = []
    for _ in range(1000):
        work = next_work(replace(search.state(), in_flight=tuple(flying)), search.plan)
        if isinstance(work, Finish):
            break
        if isinstance(work, Train | Score):
            flying.append(work)
        elif not isinstance(work, Wait):
            search.carry_out(work)
        if len(flying) >= workers or isinstance(work, Wait):
            ended = flying.pop(0)
            search.done.append(ended)
            search.carry_out(ended)
    assert isinstance(work, Finish)
    assert not flying
    assert len(set(search.done)) == len(search.done)
    alone = Search(make_plan(budget=Budget(8, None, None)), search.quality)
    alone.run()
    assert search.best()["fp16"] == pytest.approx(alone.best()["fp16"], abs=0.03)


def test_with_all_adapters_begun_one_that_adds_less_than_its_time_is_worth_is_stopped_and_says_so() -> None:
    best = adapter(0, (0.2, 0.4, 1.0), 0.8, scored=scored(0.8, "fp16", "int8", "int4"))
    others = [adapter(n, (0.2,), quality) for n, quality in ((1, 0.74), (2, 0.7))]
    plan = make_plan(budget=Budget(3, None, None))
    stopped = next_work(state(best, *others), plan)
    assert isinstance(stopped, Stop)
    assert stopped.number == 1
    assert stopped.reason.startswith("stopped at 1/5 of its steps: ")
    assert "% to the front's hypervolume for " in stopped.reason
    near = [adapter(1, (0.2,), 0.88), others[1]]
    assert next_work(state(best, *near), plan) == Train((1,), 1)
    # More adapters may come, time is what is limited, or nothing is ever to be left: each goes on.
    for other in (make_plan(budget=Budget(9, None, None)), make_plan(budget=Budget(3, None, 5000)),
                  make_plan(budget=Budget(3, None, None), least_gain=0.0)):
        assert not isinstance(next_work(state(best, *others), other), Stop)


def test_where_a_judgement_would_cost_more_than_it_may_save_training_goes_to_its_end() -> None:
    begun = [adapter(n, (0.2,), quality) for n, quality in enumerate((0.6, 0.65, GOOD, 0.55))]
    plan = make_plan(budget=Budget(4, None, None))
    dear = replace(plan, costs=replace(plan.costs, judge=30.0))
    assert next_work(state(*begun), plan) == Train((2,), 1)
    assert next_work(state(*begun), dear) == Train((2,), 2)
    assert next_work(state(*[adapter(n) for n in range(4)]), dear) == Train((0,), 0)  # the first look is never left out


def test_a_point_that_misses_a_limit_itself_is_skipped_for_that_and_not_for_what_an_adapter_is_worth() -> None:
    points = {**POINTS, "fp16": {"latency_ms.p50": 71.5, "size_mb": 540.0}}
    done = adapter(0, (0.2, 0.4, 1.0), GOOD, scored=scored(GOOD, "int4"))
    skipped = next_work(state(done), make_plan(points=points))
    assert isinstance(skipped, Skip)
    assert (skipped.label, skipped.reason) == (
        "fp16", "not scored: fp16 has latency_ms.p50 71.5, where latency_ms.p50 <= 70")


def test_while_the_first_adapter_trains_a_second_worker_begins_another_and_the_first_goes_on_first() -> None:
    first, plan = adapter(0), make_plan()
    assert next_work(replace(state(first), in_flight=(Train((0,), 0),)), plan) == Propose(1)
    beside = Train((1,), 0)
    judged = state(adapter(0, (0.2,)), adapter(1))
    assert next_work(replace(judged, in_flight=(beside,)), plan) == Train((0,), 2)


@pytest.mark.parametrize(("budget", "out_of_time"), [
    (Budget(1, None, 1e6), False), (Budget(None, 2, 1e6), False), (Budget(None, None, 400.0), True)])
def test_an_end_says_whether_it_was_for_want_of_time(budget: Budget, out_of_time: bool) -> None:
    search = Search(make_plan(budget=budget, least_gain=0.0), lambda n: GOOD)
    search.run()
    work = next_work(search.state(), search.plan)
    assert isinstance(work, Finish)
    assert work.out_of_time == out_of_time


def test_an_adapter_goes_to_its_end_unjudged_where_judging_it_would_leave_no_time_for_that() -> None:
    """80 s of training and 40 s of judging are before it, and 90 s are left."""
    plan = make_plan(budget=Budget(None, None, 120.0))
    plan = replace(plan, costs=Costs(step=1.0, steps=STEPS, judge=40.0))
    begun = state(adapter(0, (0.2,), 0.7), seconds=30.0)
    assert next_work(begun, plan) == Train((0,), 2)
    assert isinstance(next_work(replace(begun, spent=replace(begun.spent, seconds=45.0)), plan), Finish)


def test_nothing_is_scored_that_would_leave_too_little_time_to_certify_it() -> None:
    """fp16 takes 30 s to score and 120 to certify, what is chosen so far 60: of 1000 s there have to be 150."""
    plan = make_plan(budget=Budget(1, None, 1000.0))
    plan = replace(plan, costs=replace(plan.costs, reserve=60.0, reserves={"fp16": 120.0, "int8": 60.0, "int4": 50.0}))
    done = adapter(0, (0.2, 0.4, 1.0), GOOD, scored=scored(GOOD - 0.1, "int8", "int4"))
    assert next_work(state(done, seconds=845.0), plan) == Score(0, "fp16")
    late = next_work(state(done, seconds=855.0), plan)
    assert isinstance(late, Finish)
    assert late.out_of_time
