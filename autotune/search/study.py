"""The loop: carries out what next_work says, and keeps what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna import Study

from autotune.config import StudyConfig
from autotune.constraints import Constraint, total_violation
from autotune.errors import StageError
from autotune.pareto import Direction
from autotune.preparation import Prepared
from autotune.report import dashboard
from autotune.report.outcome import Outcome, judge
from autotune.report.terminal import Terminal
from autotune.run_folder import RunFolder
from autotune.search import schedule
from autotune.search.baseline import Baseline, TunedBaseline, measure_baseline
from autotune.search.costs import learned_costs
from autotune.search.crew import Crew, Piece
from autotune.search.database import Database, database_of, opening
from autotune.search.front_artifacts import FrontArtifacts
from autotune.search.ledger import Ledger
from autotune.search.limits import Limits
from autotune.search.next_work import next_work
from autotune.search.optuna_study import copy_studies, open_study
from autotune.search.pairs import Pairs
from autotune.search.planning import Planner
from autotune.search.progress import adapter_states, seconds_left
from autotune.search.proposals import Proposals, Proposed
from autotune.search.repeats import Repeated, best_of_each, repeat
from autotune.search.rungs import AdapterState, Finish, Plan, Propose, Score, Skip, State, Stop, Train, Wait, Work
from autotune.search.scoring import Scorer
from autotune.search.telling import expected
from autotune.search.ties import front_ties
from autotune.search.trainer import Trainer
from autotune.search.warm import earlier_adapters
from autotune.stats import Measurement
from autotune.storage.stage_runner import StageRunner
from autotune.storage.store import Entry
from autotune.trials import Screened, TrialRecord
from objectives.base import OBJECTIVES
from search_spaces.adapter import AdapterParams


class StudyLoop:
    """One study in one run folder, from wherever an earlier process left it."""

    def __init__(
        self, config: StudyConfig, prepared: Prepared, screened: Sequence[Screened], run: StageRunner, scorer: Scorer,
        folder: RunFolder, terminal: Terminal, budget: schedule.Budget, limits: Limits, started: float,
        width: int = 1, certifying: Callable[[float, float], float] = lambda latency_ms, row_s: 0.0,
        database: Database | None = None,
    ) -> None:
        """``started`` is the monotonic time at which one unbroken process would have begun; for ``width`` and
        ``certifying`` see `Planner`. ``database`` is that of the run folder unless another is given.

        Raises:
            ConfigError: the database cannot be opened.
        """
        self._screened = {s.point: s for s in screened}
        self._points = schedule.scoring_order(list(self._screened), {s.point: _row_cost(s) for s in screened})
        self._config, self._at, self._run, self._scorer = config, prepared, run, scorer
        self._folder, self._terminal, self._budget, self._limits = folder, terminal, budget, limits
        self._started = started
        self._database = database or database_of(folder, None, config.file.name)
        keys = [key for key, _ in config.objectives]
        visible = self._open(self._database.name, [o.direction for _, o in config.objectives], keys)
        self._ledger = Ledger(visible, prepared.points, keys, limits.now)
        self._adapter_keys = schedule.adapter_objectives(
            config.objectives, config.measured(), prepared.workload.from_rows, prepared.data.task)
        known = {**OBJECTIVES, **config.measured()}
        directions = [known[key].direction for key in self._adapter_keys for _ in (0, 1)]
        self._told = [f"{key} at the {end}" for key in self._adapter_keys for end in ("largest", "smallest")]
        study = self._open(dashboard.proposals_name(self._database.name), directions, self._told)
        self._proposals = Proposals(study, config.space, config.file.seed)
        self._proposals.annotate(dashboard.proposal_words(config.file))
        self._tuned = TunedBaseline(scorer, prepared.reference, limits, self._proposals, self._adapter_keys)
        training = config.file.training
        self._rungs, self._width = config.file.rungs, width
        self._planner = Planner(config, prepared, self._screened, self._points, limits, budget, self._adapter_keys[0],
                                width, certifying)
        self._trainer = Trainer(prepared, run, self._rungs, training.seed, training.threads,
                                lambda: {p: scorer.point(p) for p in self._planner.judged_points()})
        self._artifacts = FrontArtifacts(scorer, folder, terminal, self.records, self.outcome, self.adapter)
        self._by_label = {point.label: point for point in self._points}
        self._exhausted, self._workers = False, run.count

    def _open(self, name: str, directions: Sequence[Direction], metrics: Sequence[str]) -> Study:
        with opening(self._database):
            return open_study(self._database.url, name, directions, metrics)

    def records(self) -> list[TrialRecord]:
        return self._ledger.records()

    def annotate(self, document: Mapping[str, Any]) -> None:
        """Let those who open study.db read where the study is; ``document`` is results.json."""
        self._ledger.annotate(dashboard.visible_words(self._config.file, document))

    def keep_copy(self) -> None:
        """Leave the studies of a shared database in the run folder too, where reports and people look for them."""
        if self._database.copy:
            here = self._config.file.name
            names = {self._database.name: here,
                     dashboard.proposals_name(self._database.name): dashboard.proposals_name(here)}
            try:
                copy_studies(self._database.url, names, self._database.copy)
            except OSError as error:  # such as a full disk: the studies themselves are whole
                self._terminal.warn(f"{self._database.copy} could not be written: {error.strerror or error}")

    def wall_s(self) -> float:
        return time.monotonic() - self._started

    def spare_s(self) -> float:
        """Seconds of the time budget that neither the search nor one certificate needs; 0 without such a budget."""
        return self._planner.spare_s(self.wall_s(), self.records(), self.outcome().selected)

    def limits(self) -> tuple[Constraint, ...]:
        """The constraints with the bounds that they come to by now."""
        return self._limits.shown()

    def ties(self) -> dict[int, int]:
        """Of the front, the trials whose answers cannot be told from a cheaper one's; trial → the cheapest such."""
        numbers = self.outcome().front
        front = [r for r in self.records() if r.number in numbers]
        return front_ties(front, self._config.objectives, self._folder.predictions, self._config.file.confidence)

    def outcome(self) -> Outcome:
        return judge(self.records(), self._config.objectives, self._limits.now(), self._config.file.policy)

    def baseline(self) -> Baseline:
        """Measure the untrained base. Raises StudyError when its export disagrees with PyTorch."""
        found = measure_baseline(self._scorer, self._at.reference)
        self._limits.learn_base({key: m.value for key, m in found.scored.values.items()})
        return found

    def warm_start(self, run: Path) -> None:
        """Begin with the best adapters of an earlier run. Raises ConfigError (see `warm.earlier_adapters`)."""
        found = earlier_adapters(run, str(self._at.base.key), str(self._at.data_entry.key), self._told)
        count = self._proposals.warm_start(found.known, comparable=found.comparable)
        told = ", and the sampler knows what they came to" * found.comparable
        self._terminal.say(f"warm start: {count} adapters of {run} come first{told}" if count else
                           f"warm start: nothing new to begin with in {run}")

    def search(self, on_trial: Callable[[], Any]) -> Finish:
        """Propose, train, judge and score until the budget or the space is used up, or no more is to be expected;
        returns the end, with the sentence that says which.

        ``on_trial()`` is called after each trial. Raises StudyError when trials keep failing alike.
        """
        if dead := self._ledger.close_dead():
            self._terminal.say(f"{dead} unfinished trial{'s' * (dead > 1)} of an ended process: made again")
        self._proposals.close_ended()
        for begun in self._proposals.adapters():
            if begun.running:  # its last score may be the last thing that an ended process wrote
                self._conclude(begun.number)
        pairs = self._pairs(on_trial)
        with Crew(self._workers, self._run.working, self._run.stop) as crew:
            while True:
                state = self._state(in_flight=crew.in_flight)
                plan = self._plan(state)
                self._say_plan(state, plan)
                work = next_work(state, plan)
                if isinstance(work, Finish):
                    return work
                if not isinstance(work, Wait):
                    crew.start(work, self._piece(work, state, plan, pairs))
                if crew.full or isinstance(work, Wait):
                    crew.wait()

    def keep_front(self) -> dict[int, str]:
        """The front's artifacts into the run folder, every other one off the disk; number → folder name."""
        return self._artifacts.keep()

    def kept(self) -> dict[int, str]:
        """The artifacts that lie in the run folder already; number → folder name."""
        return self._artifacts.kept()

    def adapters(self) -> list[Proposed]:
        """Every adapter proposed, with its rungs and what became of it."""
        return self._proposals.adapters()

    def _pairs(self, on_trial: Callable[[], Any]) -> Pairs:
        return Pairs(self._config, self._at, {p: self._screened[p] for p in self._points}, self._scorer, self._trainer,
                     self._limits, self._ledger, self._proposals, self._tuned, self._artifacts,
                     self._folder.predictions, self._terminal, self.outcome, headed=self._workers == 1,
                     on_trial=on_trial)

    def _piece(self, work: Work, state: State, plan: Plan, pairs: Pairs) -> Piece:
        """One piece of work; its results are in the databases when this ends."""
        match work:
            case Propose(count):
                if not self._proposals.propose(count, expected(state, plan, self._adapter_keys)):
                    self._exhausted = True
            case Train(numbers, rung):
                yield from self._train([a for a in state.adapters if a.number in numbers], rung, pairs)
            case Score(number, label):
                yield from pairs.score(_adapter(state, number), self._by_label[label])
                self._conclude(number)
            case Stop(number, reason):
                self._terminal.stopped(self._proposals.place(number), reason)
                self._proposals.stop(self._proposals.trial(number), reason,
                                     expected(state, plan, self._adapter_keys)[number])
            case Skip(number, label, reason):
                self._terminal.skipped(self._proposals.place(number), _adapter(state, number).params, label, reason)
                self._proposals.note_skip(self._proposals.trial(number), label, reason)
                self._conclude(number)

    def _state(self, timed: bool = False, in_flight: tuple[Work, ...] = ()) -> State:
        adapters = adapter_states(self._proposals.adapters(), self.records(), self._points, len(self._at.data.train),
                                  timed or self._budget.time_s is not None)
        counted = sum(not r.interrupted and r.state != "RUNNING" for r in self.records())
        spent = schedule.Spent(len(adapters), counted, self.wall_s())
        exhausted = self._exhausted or len(adapters) >= self._config.space.adapter_count()
        return State(adapters, exhausted, spent, in_flight)

    def _plan(self, state: State) -> Plan:
        return self._planner.plan(state, self.records(), self.outcome().selected)

    def _train(self, adapters: Sequence[AdapterState], rung: int, pairs: Pairs) -> Piece:
        self._terminal.training([(self._proposals.place(a.number), a.params) for a in adapters], self._rungs[rung])
        trained = yield lambda: self._trainer.train(adapters, rung)
        for adapter, found in zip(adapters, trained, strict=True):
            proposal = self._proposals.trial(adapter.number)
            if isinstance(found, StageError):
                pairs.lost(adapter, found)
                continue
            for reached in found:
                self._proposals.note_rung(proposal, reached)
            if found[-1].right:
                self._terminal.judged(self._proposals.place(adapter.number), found[-1])

    def _conclude(self, number: int) -> None:
        """Tell the proposal study, once the adapter is decided at every deploy point."""
        state = self._state()
        adapter, proposal = _adapter(state, number), self._proposals.trial(number)
        if adapter.stopped is not None or not {p.label for p in self._points} <= set(adapter.scored):
            return
        mine = [r for r in self.records() if r.adapter == adapter.params and r.state in ("COMPLETE", "PRUNED")]
        if not mine:
            self._proposals.fail(proposal, "no deploy point could be measured")
            return
        limits = self._limits.now()
        found = expected(state, self._plan(state), self._adapter_keys)[number]
        best = min(mine, key=lambda r: total_violation(limits, {key: m.value for key, m in r.values.items()}))
        margins = {c.expr: c.margin(best.values[c.objective]) for c in limits}
        self._proposals.tell(proposal, found.values, margins)

    def adapter(self, params: AdapterParams) -> Entry:
        """The trained adapter of these parameters. Raises StageError."""
        return self._trainer.whole(params)

    def repeats(self) -> list[Repeated]:
        """The best adapters trained and scored again with other seeds, as far as the study asks for it."""
        asked, first = self._config.file.repeats, self._config.file.training.seed
        if asked is None:
            return []
        best = best_of_each(self.records(), self.outcome().front, self._config.directions(), self._config.file.policy,
                            asked.adapters)
        seeds = range(first, first + asked.seeds)
        return [repeat(trial, self._adapter_keys[0], seeds, self._score_again, self._terminal) for trial in best]

    def _score_again(self, trial: TrialRecord, seed: int) -> Measurement:
        scored = self._scorer.score(self._trainer.whole(trial.adapter, seed), trial.deploy)
        self._scorer.forget(scored.artifact, None)
        return scored.values[self._adapter_keys[0]]

    def _say_plan(self, state: State, plan: Plan) -> None:
        """Where the study is, and how long it will go on at its pace so far."""
        by_clock = learned_costs(self._state(timed=True).adapters, self.records(), self._width, plan.costs.reserve)
        spent, left = state.spent, seconds_left(state, replace(plan, costs=by_clock))
        of = f" of {plan.budget.adapters}" if plan.budget.adapters else ""
        pace = f", about {max(1, round(left / 60))} min left" if left is not None else ""
        self._terminal.plan(f"{spent.adapters}{of} adapters begun, trial {spent.trials + 1}{pace}:")


def _row_cost(screened: Screened) -> float:
    """What a row's answer takes at a point: its time to first token, or its size where no time is known yet."""
    values = screened.values
    return values["ttft_ms.p50"].value if "ttft_ms.p50" in values else values["size_mb"].value


def _adapter(state: State, number: int) -> AdapterState:
    return next(a for a in state.adapters if a.number == number)
