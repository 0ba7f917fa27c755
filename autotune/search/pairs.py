"""Pairs, each an adapter at a deploy point: scored as a visible trial, and what came of it kept and told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import Trial

from autotune import predictions
from autotune.config import StudyConfig
from autotune.errors import ProbeError, StageError, StudyError
from autotune.preparation import Prepared
from autotune.report.outcome import Outcome
from autotune.report.terminal import Terminal
from autotune.search import schedule
from autotune.search.baseline import TunedBaseline
from autotune.search.crew import Piece
from autotune.search.front_artifacts import FrontArtifacts
from autotune.search.ledger import Ledger
from autotune.search.limits import Limits
from autotune.search.progress import curve_json
from autotune.search.proposals import Proposals
from autotune.search.rungs import AdapterState
from autotune.search.scoring import Scorer
from autotune.search.trainer import Trainer
from autotune.storage.store import Entry
from autotune.trials import Scored, Screened, StageRecord, doubts
from search_spaces.deploy import DeployParams

_SAME_FAILURES_BEFORE_STOPPING = 3


@dataclass(eq=False, repr=False)
class Pairs:
    """Scores the pairs of one search. ``screened`` is in the order in which an adapter's pairs are scored. ``headed``:
    a pair has its heading when it begins too, as where one at a time is scored. ``on_trial()`` is called after each
    trial."""

    config: StudyConfig
    prepared: Prepared
    screened: Mapping[DeployParams, Screened]
    scorer: Scorer
    trainer: Trainer
    limits: Limits
    ledger: Ledger
    proposals: Proposals
    tuned: TunedBaseline
    artifacts: FrontArtifacts
    answers_folder: Path
    terminal: Terminal
    outcome: Callable[[], Outcome]
    headed: bool
    on_trial: Callable[[], Any]
    _failures: list[tuple[str, str]] = field(default_factory=list, init=False)

    def score(self, adapter: AdapterState, point: DeployParams) -> Piece:
        """One pair; what cannot be measured is a failed trial. Raises StudyError when trials keep failing alike."""
        params, place = adapter.params, self.proposals.place(adapter.number)
        if self.headed:
            self.terminal.scoring(place, params)
        try:
            entry = yield lambda: self.trainer.whole(params)
            yield from self.tuned.learn(adapter, entry)
        except StageError as error:
            self.lost(adapter, error)
            return
        trial = self.ledger.begin(self.proposals.trial(adapter.number), params, point)
        needed = self._needed(point)
        try:
            scored = yield lambda: self.scorer.score(entry, point, needed)
            missing = [key for key in self.config.measured() if key not in scored.values]
            if missing and not scored.stopped:
                raise ProbeError(f"{', '.join(missing)} was not measured; no limit on it can be held")
        except StageError as error:
            self.terminal.scoring(place, params)
            self._failed(trial, error)
            return
        self._failures.clear()
        for device, why in doubts(scored.timed, scored.elsewhere).items():
            self.terminal.warn(f"trial {trial.number}'s latency{device and f' on {device}'} is in doubt: {why}")
        self._write(trial, adapter, entry, point, scored)
        self.artifacts.drop_others()
        self.terminal.scoring(place, params)
        self.terminal.trial(self.ledger.record(trial.number), self.config.objectives, self.outcome())
        self.on_trial()

    def lost(self, adapter: AdapterState, error: StageError) -> None:
        """An adapter that cannot be trained, or not be scored at the highest precision: a failed trial tells, at the
        point that is scored first. Raises StudyError when trials keep failing alike.

        Where a process died after it had told so, before the proposal was ended, it is told already; or where another
        of its pairs came to the same meanwhile.
        """
        proposal, params = self.proposals.trial(adapter.number), adapter.params
        told = any(r.adapter == params and r.state == "FAILED" and not r.interrupted for r in self.ledger.records())
        if not told:
            self._failed(self.ledger.begin(proposal, params, next(iter(self.screened))), error)
        if any(p.running for p in self.proposals.adapters() if p.number == adapter.number):
            self.proposals.fail(proposal, error.reason)

    def _write(
        self, trial: Trial, adapter: AdapterState, entry: Entry, point: DeployParams, scored: Scored
    ) -> None:
        made = {name: asdict(stage) for name, stage in
                {"train": StageRecord(str(entry.key), entry.seconds, entry.cached), **scored.stages}.items()}
        record = self.trainer.training(entry)
        curve = curve_json(adapter.rungs, point.label, record["curve"], record["valid_loss"])
        if scored.stopped:
            self.ledger.prune(trial, scored, str(entry.key), made, curve, scored.stopped.sentence())
            self.scorer.forget(scored.artifact, None)
        else:
            references = [e.answer_text for e in self.prepared.data.valid]
            predictions.save(predictions.path_of(self.answers_folder, trial.number), references, scored.answers)
            self.ledger.complete(trial, scored, str(entry.key), made, curve)

    def _needed(self, point: DeployParams) -> int | None:
        """How many rows a trial at this point must get right to matter; None when it may not be stopped."""
        if self.prepared.data.task != "choice" or not self.config.file.early_stop_error:
            return None
        complete = [r for r in self.ledger.records() if r.state == "COMPLETE"]
        known = {key: m.value for key, m in self.screened[point].values.items()}
        # An artifact of the point itself tells the size to the byte.
        sizes = (r.values["size_mb"].value for r in complete if r.deploy == point)
        known["size_mb"] = next(sizes, known["size_mb"])
        return schedule.needed_right(
            len(self.prepared.data.valid), known, [{k: m.value for k, m in r.values.items()} for r in complete],
            self.config.directions(), self.limits.now(),
        )

    def _failed(self, trial: Trial, error: StageError) -> None:
        self.ledger.fail(trial, error.stage, error.reason)
        self.terminal.failed(trial.number, error.stage, error.reason)
        self.on_trial()
        now = (error.stage, error.reason)
        alike = self._failures and schedule.same_failure(self._failures[-1], now)
        self._failures = [*self._failures, now] if alike else [now]
        if len(self._failures) >= _SAME_FAILURES_BEFORE_STOPPING:
            raise StudyError(f"{len(self._failures)} trials in a row failed at stage {error.stage}: {error.reason}")
