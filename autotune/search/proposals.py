"""The proposal study: an Optuna study whose trial is an adapter."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import OptunaError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from autotune.pareto import Direction
from autotune.report.terminal import describe
from autotune.report.wording import number
from autotune.search.asking import Known, ask, best_first, given
from autotune.search.optuna_study import END_REASON, RECORD, annotate, as_json, fixed_ask, keep, recorded
from autotune.search.rungs import Rung
from autotune.search.schedule import first_points
from search_spaces.adapter import AdapterParams
from search_spaces.space import Space, Value

ADAPTER = "adapter"
_BASELINE = "baseline"
_EXPECTED = "expected"
_WARM = "warm_start"
_RUNGS = "rungs"
_SKIPPED = "skipped"


ProposedState = Literal["begun", "complete", "stopped", "failed"]
_STATES: dict[TrialState, ProposedState] = {
    TrialState.RUNNING: "begun", TrialState.WAITING: "begun", TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped", TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class Expected:
    """What the sampler is told of an adapter that was not scored everywhere: its forecast."""

    values: tuple[float, ...]
    violations: Mapping[str, float]


@dataclass(frozen=True)
class Proposed:
    """An adapter of the proposal study. ``reason``: why it was stopped or failed; None where it is neither.

    ``skipped``: deploy points that it is not scored at, by label, each with the sentence why.
    """

    number: int
    params: AdapterParams
    state: ProposedState
    reason: str | None
    rungs: tuple[Rung, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        return self.state == "begun"


class Proposals:
    """Asks for adapters: warm-start points, expert points, then TPE with constraints; no adapter twice.

    Several may be under way at a time. An adapter that a dead process left running is still under way, so it is not
    lost.
    """

    def __init__(self, study: optuna.Study, space: Space, seed: int) -> None:
        self._study = study
        self._space = space
        self._seed = seed
        self._experts = first_points(space)

    def count(self) -> int:
        """Adapters proposed so far."""
        return len(self._proposed())

    def running(self) -> bool:
        """Whether an adapter was begun and not scored everywhere."""
        return bool(self.under_way())

    def adapters(self) -> list[Proposed]:
        """Every adapter proposed, in the order of the proposals."""
        return [
            Proposed(t.number, _adapter(t), _STATES[t.state], t.user_attrs.get(END_REASON),
                     tuple(Rung(**r) for r in recorded(t).get(_RUNGS, ())), recorded(t).get(_SKIPPED, {}))
            for t in self._proposed()
        ]

    def under_way(self) -> list[tuple[Trial, AdapterParams]]:
        """The adapters that were begun and neither told, stopped nor failed."""
        return [(self.trial(p.number), p.params) for p in self.adapters() if p.running]

    def place(self, number: int) -> int:
        """An adapter's place among those proposed, from 1 on: what people see of it."""
        return next(i for i, t in enumerate(self._proposed(), 1) if t.number == number)

    def trial(self, number: int) -> Trial:
        return Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)

    def next(self) -> tuple[Trial, AdapterParams] | None:
        """The adapter under way, or the next one to train; None when the space holds no further one."""
        return next(iter(self.under_way() or self.propose(1)), None)

    def propose(self, count: int, expected: Mapping[int, Expected] | None = None) -> list[tuple[Trial, AdapterParams]]:
        """``count`` new adapters, each proposed with the ones before it in mind; fewer when the space holds no more.

        ``expected``: what is forecast of adapters under way, by the number of their trial. The others under way count
        as begun without any result (see `asking.Known`).
        """
        self._close_unfinished_asks()
        found = []
        for _ in range(count):
            proposed = self._proposed()
            first = self._first()
            known = [_known(t, (expected or {}).get(t.number)) for t in proposed if t.state != TrialState.FAIL]
            asked = ask(
                self._space, [*known, *self._earlier()], {_adapter(t) for t in proposed},
                _directions(self._study), self._seed,
                fixed=first[len(proposed)] if len(proposed) < len(first) else None, startup=max(6, len(first)),
            )
            if asked is None:
                break
            trial = fixed_ask(self._study, asked.params, asked.distributions)
            keep(trial, **{ADAPTER: asked.adapter.flat()})
            trial.set_user_attr(ADAPTER, describe(asked.adapter))
            found.append((trial, asked.adapter))
        return found

    def tell(self, trial: Trial, values: Sequence[float], violations: Mapping[str, float]) -> None:
        """What came of an adapter: its objectives, and the violation of each limit (at most 0: held)."""
        for expr, violation in violations.items():
            trial.set_constraint(expr, violation)
        self._study.tell(trial, list(values))

    def stop(self, trial: Trial, reason: str, expected: Expected) -> None:
        """End an adapter before its last rung: PRUNED, with what was forecast of it, which the sampler goes on learning
        from. People see the values marked as expected."""
        keep(trial, **{_EXPECTED: [list(expected.values), dict(expected.violations)]})
        for name, value in zip(self._study.metric_names or [], expected.values, strict=False):
            trial.set_user_attr(f"expected {name}", number(value))
        trial.set_user_attr(END_REASON, reason)
        self._study.tell(trial, state=TrialState.PRUNED)

    def warm_start(self, earlier: Sequence[Known], first: int = 4, comparable: bool = True) -> int:
        """Begin where an earlier run of the same base model ended: its ``first`` best adapters are proposed first.

        ``comparable``: it answered the same rows, so its values teach the sampler, too. Points outside this space
        tell nothing and are left out. Kept in the study, and only by the first call before any proposal: gives how many
        adapters it begins with.
        """
        if self._proposed() or _WARM in self._notes():
            return 0
        usable = [k for k in earlier if given(self._space, k.params)]
        points = best_first(usable, _directions(self._study), first)
        self._study._storage.set_study_system_attr(self._study._study_id, RECORD, as_json({**self._notes(), _WARM: {
            "first": [dict(p) for p in points],
            "known": [[dict(k.params), list(k.values), dict(k.violations)] for k in usable if k.values] * comparable,
        }}))
        return len(points)

    def note_rung(self, trial: Trial, rung: Rung) -> None:
        """Keep how an adapter was judged at a rung; people see its right answers."""
        before = recorded(trial.storage.get_trial(trial._trial_id)).get(_RUNGS, [])
        keep(trial, **{_RUNGS: [*before, asdict(rung)]})
        if rung.right:
            right = ", ".join(f"{label} {count}" for label, count in rung.right.items())
            trial.set_user_attr(f"right of {rung.rows} at step {rung.step}", right)

    def note_skip(self, trial: Trial, label: str, reason: str) -> None:
        """Keep that an adapter is not scored at a deploy point, and why."""
        before = recorded(trial.storage.get_trial(trial._trial_id)).get(_SKIPPED, {})
        keep(trial, **{_SKIPPED: {**before, label: reason}})
        trial.set_user_attr(f"{label} not scored", reason)

    def note_baseline(self, trial: Trial, values: Mapping[str, float], shown: Sequence[str] = ()) -> None:
        """Keep what an adapter scored at the highest precision, which relative limits may rest on; people see those
        that are ``shown``."""
        keep(trial, **{_BASELINE: dict(values)})
        for key in shown:
            trial.set_user_attr(f"{key} at the highest precision", number(values[key]))

    def baselines(self) -> list[tuple[AdapterParams, dict[str, float]]]:
        """What was noted so far, in the order of the proposals."""
        return [(_adapter(t), recorded(t)[_BASELINE]) for t in self._proposed() if _BASELINE in recorded(t)]

    def close_ended(self) -> None:
        """End adapters of a process that died between the reason of their end and the end."""
        for trial in self._proposed():
            if END_REASON in trial.user_attrs and not trial.state.is_finished():
                state = TrialState.PRUNED if _EXPECTED in recorded(trial) else TrialState.FAIL
                self._study.tell(trial.number, state=state)

    def fail(self, trial: Trial, reason: str) -> None:
        trial.set_user_attr(END_REASON, reason)
        self._study.tell(trial, state=TrialState.FAIL)

    def annotate(self, words: Mapping[str, str]) -> None:
        annotate(self._study, words)

    def _proposed(self) -> list[FrozenTrial]:
        return [t for t in self._study.get_trials(deepcopy=False) if ADAPTER in recorded(t)]

    def _first(self) -> list[Mapping[str, Value]]:
        warm = self._notes().get(_WARM, {}).get("first", [])
        return [*warm, *(p for p in self._experts if p not in warm)]

    def _earlier(self) -> list[Known]:
        warm = self._notes().get(_WARM, {}).get("known", [])
        return [Known(params, tuple(values), violations) for params, values, violations in warm]

    def _notes(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._study._storage.get_study_system_attrs(self._study._study_id).get(RECORD, {})
        return found

    def _close_unfinished_asks(self) -> None:
        """Trials of a process that died before they had their adapter."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if ADAPTER not in recorded(trial):
                self._study.tell(trial.number, state=TrialState.FAIL)


def _known(trial: FrozenTrial, expected: Expected | None) -> Known:
    if trial.state == TrialState.COMPLETE:
        return Known(trial.params, tuple(trial.values), trial.constraints)
    if trial.state == TrialState.PRUNED:
        values, violations = recorded(trial)[_EXPECTED]
        return Known(trial.params, tuple(values), violations)
    return Known(trial.params, expected.values, expected.violations) if expected else Known(trial.params)


def _directions(study: optuna.Study) -> list[Direction]:
    return ["maximize" if d == StudyDirection.MAXIMIZE else "minimize" for d in study.directions]


def _adapter(trial: FrozenTrial) -> AdapterParams:
    return AdapterParams(**recorded(trial)[ADAPTER])


def read_study(database: Path, name: str) -> tuple[list[str], list[Known]]:
    """What the proposal study of an earlier run calls its values, and what it knows of its adapters.

    Raises KeyError where the database holds no such study, FileNotFoundError where there is no database, ValueError
    where the file is none.
    """
    if not database.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(database))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.load_study(study_name=name, storage=f"sqlite:///{database}")
    except (SQLAlchemyError, OptunaError) as error:
        raise ValueError(str(error)) from error
    proposed = [t for t in study.get_trials(deepcopy=False) if ADAPTER in recorded(t)]
    return list(study.metric_names or []), [k for t in proposed if (k := _known(t, None)).values is not None]
