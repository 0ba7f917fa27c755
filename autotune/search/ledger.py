"""The visible study: an Optuna study whose trial is an adapter at a deploy point, as people open it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from autotune.constraints import Constraint
from autotune.pareto import Candidate, feasible
from autotune.report.terminal import describe
from autotune.report.wording import measured
from autotune.search.optuna_study import END_REASON, annotate, fixed_ask, keep, recorded
from autotune.stats import Measurement
from autotune.storage.entry_key import Key
from autotune.trials import INTERRUPTED, Scored, State, TrialRecord
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "COMPLETE", TrialState.PRUNED: "PRUNED", TrialState.FAIL: "FAILED",
    TrialState.RUNNING: "RUNNING", TrialState.WAITING: "RUNNING",
}


class Ledger:
    """Writes and reads the visible trials."""

    def __init__(
        self, study: optuna.Study, points: Sequence[DeployParams], keys: Sequence[str],
        limits: Callable[[], Sequence[Constraint]],
    ) -> None:
        """``limits`` gives the constraints as they stand when a trial ends."""
        self._study = study
        self._keys = tuple(keys)
        self._limits = limits
        self._deploy: dict[str, BaseDistribution] = {
            f.name: CategoricalDistribution(tuple(dict.fromkeys(getattr(p, f.name) for p in points)))
            for f in fields(DeployParams)
            if len({getattr(p, f.name) for p in points}) > 1
        }

    def close_dead(self) -> int:
        """End trials that a dead process left running; they are made again. Returns how many."""
        dead = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
        for trial in dead:
            self.fail(Trial(self._study, trial._trial_id), INTERRUPTED, "the process ended while this trial ran")
        return len(dead)

    def begin(self, proposal: Trial, adapter: AdapterParams, deploy: DeployParams) -> Trial:
        flat = deploy.flat()
        params = {**proposal.params, **{name: flat[name] for name in self._deploy}}
        trial = fixed_ask(self._study, params, {**proposal.distributions, **self._deploy})
        keep(trial, adapter=adapter.flat(), deploy=flat)
        trial.set_user_attr("adapter", describe(adapter))
        trial.set_user_attr("deploy_point", deploy.label)
        return trial

    def complete(
        self, trial: Trial, scored: Scored, adapter_key: str, stages: Mapping[str, Mapping[str, Any]],
        rungs: Sequence[Mapping[str, Any]],
    ) -> None:
        """Raises KeyError when an objective or a constrained quantity was not measured."""
        values = [scored.values[key].value for key in self._keys]
        self._write(trial, scored, adapter_key, stages, rungs)
        limits, numbers = self._limits(), {key: m.value for key, m in scored.values.items()}
        trial.set_user_attr("feasible", "yes" if feasible(Candidate(trial.number, numbers), limits) else "no")
        for limit in limits:
            found = scored.values[limit.objective]
            trial.set_user_attr(limit.expr, limit.verdict(found.low, found.high))
        self._study.tell(trial, values)

    def _write(
        self, trial: Trial, scored: Scored, adapter_key: str, stages: Mapping[str, Mapping[str, Any]],
        rungs: Sequence[Mapping[str, Any]],
    ) -> None:
        for constraint in self._limits():
            trial.set_constraint(constraint.expr, constraint.violation(scored.values[constraint.objective].value))
        keep(trial, measurements={k: asdict(m) for k, m in scored.values.items()}, stages=stages,
             adapter_key=adapter_key, artifact=[scored.artifact.stage, scored.artifact.digest], rungs=rungs,
             on_base=sorted(scored.on_base))
        for key, found in scored.values.items():
            trial.set_user_attr(key, measured(found))

    def prune(
        self, trial: Trial, scored: Scored, adapter_key: str, stages: Mapping[str, Mapping[str, Any]],
        rungs: Sequence[Mapping[str, Any]], reason: str,
    ) -> None:
        """As ``complete``, for a trial that was ended because it can no longer matter.

        Its predicted violations are kept: without any, Optuna would rank it above every infeasible trial.
        """
        self._write(trial, scored, adapter_key, stages, rungs)
        self._end(trial, "answers", reason, TrialState.PRUNED)

    def fail(self, trial: Trial, stage: str, reason: str) -> None:
        self._end(trial, stage, reason, TrialState.FAIL)

    def annotate(self, words: Mapping[str, str]) -> None:
        """What people read of the study as a whole beside its trials."""
        annotate(self._study, words)

    def records(self) -> list[TrialRecord]:
        """Every trial by number; one that died before it had its parameters is left out."""
        return [_record(t) for t in self._study.get_trials(deepcopy=False) if "deploy" in recorded(t)]

    def record(self, number: int) -> TrialRecord:
        """One trial by its number, which there has to be."""
        return next(r for r in self.records() if r.number == number)

    def _end(self, trial: Trial, stage: str, reason: str, state: TrialState) -> None:
        keep(trial, failure=[stage, reason])
        trial.set_user_attr(END_REASON, f"{stage}: {reason}")
        self._study.tell(trial, state=state)


def _record(trial: FrozenTrial) -> TrialRecord:
    attrs = recorded(trial)
    failure = attrs.get("failure")
    artifact = attrs.get("artifact")
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],
        adapter=AdapterParams(**attrs["adapter"]),
        deploy=DeployParams(**attrs["deploy"]),
        adapter_key=attrs.get("adapter_key"),
        values={k: Measurement(**m) for k, m in attrs.get("measurements", {}).items()},
        stages=attrs.get("stages", {}),
        artifact=Key(*artifact) if artifact else None,
        failure=(failure[0], failure[1]) if failure else None,
        rungs=attrs.get("rungs", ()),
        on_base=frozenset(attrs.get("on_base", ())),
    )
