"""The best adapters trained again with other seeds: how much of a winner's score is the luck of one training.

What an interval over validation rows tells is how another draw of rows would score the same adapter. Another draw of
the initial matrices, the order of the data and dropout is a second source of chance (Dodge et al. 2020, arXiv
2002.06305), and no number of rows shows it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.errors import StageError
from autotune.pareto import Direction, Policy, rank
from autotune.report.results import interval_json
from autotune.report.terminal import Terminal, describe
from autotune.report.wording import join, number
from autotune.stats import Measurement
from autotune.trials import TrialRecord
from search_spaces.adapter import AdapterParams


@dataclass(frozen=True)
class Repeated:
    """One adapter at its best trial's deploy point; ``scores`` are of ``objective`` by training seed, the trial's own
    first. ``failed`` has the reason of each seed that gave none."""

    trial: int
    deploy_point: str
    objective: str
    scores: Mapping[int, Measurement]
    failed: Mapping[int, str]

    @property
    def mean(self) -> float:
        return statistics.fmean(m.value for m in self.scores.values())

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation over the seeds; None of a single one."""
        values = [m.value for m in self.scores.values()]
        return statistics.stdev(values) if len(values) > 1 else None

    def sentence(self) -> str:
        """For people; the reasons of failures stand apart."""
        values = [m.value for m in self.scores.values()]
        told = f"trial {self.trial} ({self.deploy_point}) over {len(values)} training seeds: {self.objective} "
        if self.deviation is None:
            return f"{told}{number(values[0])}"
        return (f"{told}{join([number(v) for v in values])}; mean {number(self.mean)}, standard deviation "
                f"{number(self.deviation)}")

    def as_json(self) -> dict[str, Any]:
        return {
            "trial": self.trial, "deploy_point": self.deploy_point, "objective": self.objective, "mean": self.mean,
            "deviation": self.deviation, "sentence": self.sentence(),
            "seeds": [{"seed": seed, **interval_json(m)} for seed, m in self.scores.items()],
            "failed": [{"seed": seed, "reason": reason} for seed, reason in self.failed.items()],
        }


def best_of_each(
    records: Sequence[TrialRecord], front: Sequence[int], objectives: Sequence[tuple[str, Direction]],
    policy: Policy, count: int,
) -> list[TrialRecord]:
    """The best trial of each of at most ``count`` adapters: the front's in the policy's order, then the others'."""
    complete = {r.number: r for r in records if r.state == "COMPLETE"}
    first = rank([complete[n].candidate() for n in front], objectives, policy)
    rest = [r.candidate() for n, r in complete.items() if n not in front]
    chosen: dict[AdapterParams, TrialRecord] = {}
    for trial in (*first, *rank(rest, objectives, policy)):
        chosen.setdefault(complete[trial].adapter, complete[trial])
    return list(chosen.values())[:count]


def repeat(
    trial: TrialRecord, objective: str, seeds: Sequence[int],
    score: Callable[[TrialRecord, int], Measurement], terminal: Terminal,
) -> Repeated:
    """Score the trial's adapter trained with each of ``seeds`` beside its own, the first. ``score`` trains and scores
    one; what it raises as StageError costs that seed alone."""
    terminal.say(f"trial {trial.number} with other training seeds  {describe(trial.adapter)}")
    scores, failed = {seeds[0]: trial.values[objective]}, {}
    for seed in seeds[1:]:
        try:
            scores[seed] = score(trial, seed)
        except StageError as error:
            failed[seed] = f"{error.stage}: {error.reason}"
            terminal.warn(f"trial {trial.number} with training seed {seed}: {failed[seed]}")
    found = Repeated(trial.number, trial.deploy.label, objective, scores, failed)
    terminal.say(f"  {found.sentence()}")
    return found
