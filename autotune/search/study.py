"""The loop: adapters from the proposal study, each scored at every deploy point as a visible trial."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import Trial

from autotune import predictions
from autotune.config import StudyConfig
from autotune.constraints import Constraint, total_violation
from autotune.errors import ExportError, ProbeError, StageError, StudyError, TrainingError
from autotune.pipeline import stages
from autotune.preparation import Prepared
from autotune.report import dashboard
from autotune.report.outcome import Outcome, judge
from autotune.report.terminal import Terminal
from autotune.run_folder import RunFolder
from autotune.search import schedule
from autotune.search.ledger import Ledger
from autotune.search.limits import Limits
from autotune.search.proposals import Proposals, open_study
from autotune.search.repeats import Repeated, best_of_each, repeat
from autotune.search.scoring import Scorer
from autotune.search.ties import front_ties
from autotune.stats import Measurement
from autotune.storage.stage_runner import StageRunner
from autotune.storage.store import Entry
from autotune.trials import Scored, Screened, StageRecord, TrialRecord
from objectives.base import OBJECTIVES
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

_SAME_FAILURES_BEFORE_STOPPING = 3


@dataclass(frozen=True)
class Baseline:
    """The untrained base at the highest precision, asked the same questions, and its export's agreement."""

    deploy: DeployParams
    scored: Scored
    logits: Mapping[str, Any]


class StudyLoop:
    """One study in one run folder, from wherever an earlier process left it."""

    def __init__(
        self, config: StudyConfig, prepared: Prepared, screened: Sequence[Screened], run: StageRunner, scorer: Scorer,
        folder: RunFolder, terminal: Terminal, budget: schedule.Budget, limits: Limits, started: float,
    ) -> None:
        """``started`` is the monotonic time at which one unbroken process would have begun."""
        self._screened = {s.point: s for s in screened}
        self._points = schedule.scoring_order(list(self._screened), {s.point: _row_cost(s) for s in screened})
        self._config, self._at, self._run, self._scorer = config, prepared, run, scorer
        self._folder, self._terminal, self._budget, self._limits = folder, terminal, budget, limits
        self._started = started
        database = f"sqlite:///{folder.database}"
        keys = [key for key, _ in config.objectives]
        visible = open_study(database, config.file.name, [o.direction for _, o in config.objectives], keys)
        self._ledger = Ledger(visible, prepared.points, keys, limits.now)
        self._adapter_keys = schedule.adapter_objectives(
            config.objectives, config.measured(), prepared.workload.from_rows, prepared.data.task)
        known = {**OBJECTIVES, **config.measured()}
        directions = [known[key].direction for key in self._adapter_keys for _ in (0, 1)]
        names = [f"{key} at the {end}" for key in self._adapter_keys for end in ("largest", "smallest")]
        study = open_study(database, dashboard.proposals_name(config.file.name), directions, names)
        self._proposals = Proposals(study, config.space, config.file.seed)
        self._proposals.annotate(dashboard.proposal_words(config.file))
        for params, values in self._proposals.baselines():
            limits.learn_tuned(params, values)
        self._adapters: dict[AdapterParams, Entry] = {}
        self._failures: list[tuple[str, str]] = []
        self._trials_before, self._wall_before = 0, 0.0

    def records(self) -> list[TrialRecord]:
        return self._ledger.records()

    def annotate(self, document: Mapping[str, Any]) -> None:
        """Let those who open study.db read where the study is; ``document`` is results.json."""
        self._ledger.annotate(dashboard.visible_words(self._config.file, document))

    def wall_s(self) -> float:
        return time.monotonic() - self._started

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
        try:
            logits = self._scorer.check_reference()
            scored = self._scorer.score(None, self._at.reference)
        except ExportError as error:
            raise StudyError(f"the base model does not survive its export: {error.reason}") from error
        except StageError as error:
            raise StudyError(f"the untrained base could not be measured ({error.stage}): {error.reason}") from error
        self._limits.learn_base({key: m.value for key, m in scored.values.items()})
        return Baseline(self._at.reference, scored, logits)

    def search(self, on_trial: Any) -> str:
        """Train and score until the budget or the space is used up; returns the sentence that says which.

        ``on_trial()`` is called after each trial. Raises StudyError when trials keep failing alike.
        """
        if dead := self._ledger.close_dead():
            self._terminal.say(f"{dead} unfinished trial{'s' * (dead > 1)} of an ended process: made again")
        self._trials_before, self._wall_before = self._spent().trials, self.wall_s()
        while True:
            # Going on with an adapter that was begun is no new adapter.
            within = schedule.spent_up if self._proposals.running() else schedule.may_train
            stop = within(self._budget, self._spent())
            if stop:
                return stop
            proposal = self._proposals.next()
            if proposal is None:
                return "every adapter of the space has been tried"
            self._try(*proposal, on_trial)

    def keep_front(self) -> dict[int, str]:
        """The front's artifacts into the run folder, every other one off the disk; number → folder name."""
        self._drop_dominated()
        wanted, kept = self._wanted(), {}
        for record in self.records():
            if record.number not in wanted:
                continue
            name = f"trial-{record.number}"
            try:
                if not (self._folder.artifacts / name).exists():
                    self._scorer.keep(self.adapter(record.adapter), record.deploy, name)
                kept[record.number] = name
            except StageError as error:
                self._terminal.warn(f"the artifact of trial {record.number} could not be kept: {error.reason}")
        return kept

    def kept(self) -> dict[int, str]:
        """The artifacts that lie in the run folder already; number → folder name."""
        names = {r.number: f"trial-{r.number}" for r in self.records()}
        return {number: name for number, name in names.items() if (self._folder.artifacts / name).exists()}

    def _try(self, proposal: Trial, params: AdapterParams, on_trial: Any) -> None:
        finished = [r for r in self.records() if r.adapter == params and not r.interrupted]
        untrained = next((r.failure for r in finished if r.failure and r.failure[0] == TrainingError.stage), None)
        if untrained:  # by a process that ended before it could tell the proposal study
            self._proposals.fail(proposal, untrained[1])
            return
        points = schedule.missing_pairs(params, self._points, {r.pair for r in finished})
        self._terminal.adapter(self._proposals.count(), params)
        self._say_plan()
        try:
            entry = self.adapter(params)
            self._learn_baseline(proposal, params, entry)
        except StageError as error:
            self._failed(self._ledger.begin(proposal, params, self._points[0]), error, on_trial)
            self._proposals.fail(proposal, error.reason)
            return
        for point in points:
            if schedule.spent_up(self._budget, self._spent()):
                break
            self._score(proposal, params, entry, point, on_trial)
        self._conclude(proposal, params)

    def _learn_baseline(self, proposal: Trial, params: AdapterParams, entry: Entry) -> None:
        """Score the adapter at the highest precision where limits are relative to the best one there."""
        if self._limits.need_tuned:
            scored = self._scorer.score(entry, self._at.reference)
            values = {key: m.value for key, m in scored.values.items()}
            self._proposals.note_baseline(proposal, values, self._adapter_keys)
            self._limits.learn_tuned(params, values)
        if unresolved := self._limits.unresolved():
            raise StudyError(f"{unresolved}: the baseline has no such value, so the limit cannot be held")

    def _score(
        self, proposal: Trial, params: AdapterParams, entry: Entry, point: DeployParams, on_trial: Any
    ) -> None:
        trial = self._ledger.begin(proposal, params, point)
        try:
            scored = self._scorer.score(entry, point, self._needed(point))
            missing = [key for key in self._config.measured() if key not in scored.values]
            if missing and not scored.stopped:
                raise ProbeError(f"{', '.join(missing)} was not measured; no limit on it can be held")
        except StageError as error:
            self._failed(trial, error, on_trial)
            return
        self._failures.clear()
        if scored.timed and scored.timed.steadiness.state != "steady":
            self._terminal.warn(f"trial {trial.number}'s latency is in doubt: {scored.timed.steadiness.sentence()}")
        record = {name: asdict(stage) for name, stage in
                  {"train": StageRecord(str(entry.key), entry.seconds, entry.cached), **scored.stages}.items()}
        if scored.stopped:
            self._ledger.prune(trial, scored, str(entry.key), record, _rungs(entry), scored.stopped.sentence())
            self._scorer.forget(scored.artifact, None)
        else:
            self._save_answers(trial.number, scored)
            self._ledger.complete(trial, scored, str(entry.key), record, _rungs(entry))
        self._drop_dominated()
        self._say_plan()
        self._terminal.trial(self._record(trial.number), self._config.objectives, self.outcome())
        on_trial()

    def _save_answers(self, number: int, scored: Scored) -> None:
        references = [e.answer_text for e in self._at.data.valid]
        predictions.save(predictions.path_of(self._folder.predictions, number), references, scored.answers)

    def _needed(self, point: DeployParams) -> int | None:
        """How many rows a trial at this point must get right to matter; None when it may not be stopped."""
        if self._at.data.task != "choice" or not self._config.file.early_stop_error:
            return None
        complete = [r for r in self.records() if r.state == "COMPLETE"]
        known = {key: m.value for key, m in self._screened[point].values.items()}
        # An artifact of the point itself tells the size to the byte.
        sizes = (r.values["size_mb"].value for r in complete if r.deploy == point)
        known["size_mb"] = next(sizes, known["size_mb"])
        return schedule.needed_right(
            len(self._at.data.valid), known, [{k: m.value for k, m in r.values.items()} for r in complete],
            self._config.directions(), self._limits.now(),
        )

    def _failed(self, trial: Trial, error: StageError, on_trial: Any) -> None:
        self._ledger.fail(trial, error.stage, error.reason)
        self._terminal.failed(trial.number, error.stage, error.reason)
        on_trial()
        now = (error.stage, error.reason)
        alike = self._failures and schedule.same_failure(self._failures[-1], now)
        self._failures = [*self._failures, now] if alike else [now]
        if len(self._failures) >= _SAME_FAILURES_BEFORE_STOPPING:
            raise StudyError(f"{len(self._failures)} trials in a row failed at stage {error.stage}: {error.reason}")

    def _conclude(self, proposal: Trial, params: AdapterParams) -> None:
        """Tell the proposal study, unless the budget ended in the middle of the adapter."""
        mine = [r for r in self.records() if r.adapter == params and not r.interrupted]
        # What was known of a pruned trial when it was ended is evidence about its adapter too.
        complete = {r.deploy: {k: m.value for k, m in r.values.items()}
                    for r in mine if r.state in ("COMPLETE", "PRUNED")}
        if not {r.deploy for r in mine} >= set(self._points):
            return
        if not complete:
            self._proposals.fail(proposal, "no deploy point could be measured")
            return
        limits = self._limits.now()
        best = min(complete, key=lambda point: total_violation(limits, complete[point]))
        measured = next(r.values for r in mine if r.deploy == best and r.values)
        margins = {c.expr: c.margin(measured[c.objective]) for c in limits}
        self._proposals.tell(proposal, schedule.proposal_values(complete, self._adapter_keys), margins)

    def adapter(self, params: AdapterParams) -> Entry:
        """The trained adapter of these parameters. Raises StageError."""
        if params not in self._adapters:
            self._adapters[params] = self._trained(params, self._config.file.training.seed)
        return self._adapters[params]

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
        scored = self._scorer.score(self._trained(trial.adapter, seed), trial.deploy)
        self._scorer.forget(scored.artifact, None)
        return scored.values[self._adapter_keys[0]]

    def _trained(self, params: AdapterParams, seed: int) -> Entry:
        return self._run.adapter(
            self._at.base, self._at.data_entry, params, seed, self._config.file.training.threads)

    def _drop_dominated(self) -> None:
        """Only artifacts that may still be chosen keep their disk."""
        wanted = self._wanted()
        for record in self.records():
            if record.state == "COMPLETE" and record.artifact and record.number not in wanted:
                self._scorer.forget(record.artifact, f"trial-{record.number}")

    def _wanted(self) -> set[int]:
        """The trials whose artifacts may still be chosen."""
        outcome = self.outcome()
        return set(outcome.front) | ({outcome.miss.trial} if outcome.miss else set())

    def _spent(self) -> schedule.Spent:
        counted = sum(not r.interrupted for r in self.records())
        return schedule.Spent(self._proposals.count(), counted, self.wall_s())

    def _say_plan(self) -> None:
        """Where the study is, and how long it will go on at its pace so far."""
        spent, budget = self._spent(), self._budget
        done = spent.trials - self._trials_before
        planned = min(
            (limit for limit in (budget.trials, budget.adapters and budget.adapters * len(self._points)) if limit),
            default=None,
        )
        if planned is None:
            self._terminal.plan(f"trial {spent.trials + 1}")
            return
        left = (self.wall_s() - self._wall_before) / done * (planned - spent.trials) if done else None
        if left is not None and budget.time_s is not None:
            left = min(left, budget.time_s - spent.seconds)
        pace = f", about {max(1, round(left / 60))} min left" if left is not None else ""
        self._terminal.plan(f"trial {min(spent.trials + 1, planned)} of {planned}{pace}:")

    def _record(self, number: int) -> TrialRecord:
        return next(r for r in self.records() if r.number == number)


def _row_cost(screened: Screened) -> float:
    """What a row's answer takes at a point: its time to first token, or its size where no time is known yet."""
    values = screened.values
    return values["ttft_ms.p50"].value if "ttft_ms.p50" in values else values["size_mb"].value


def _rungs(entry: Entry) -> list[dict[str, Any]]:
    """The learning curve as results.json holds it; accuracy is judged on artifacts alone here."""
    record = json.loads((entry.path / stages.TRAINING_FILE).read_text(encoding="utf-8"))
    return [
        {"step": step, "valid_loss": loss if math.isfinite(loss) else None, "accuracy": None}
        for step, loss in record["curve"]
    ]

