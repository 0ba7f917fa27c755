"""A study's plan: what its rules may count on, from its file, its screened deploy points and what work took so far."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from autotune.config import StudyConfig
from autotune.estimate import layer_parameters
from autotune.pipeline.roundings import FULL, rounding
from autotune.preparation import Prepared
from autotune.search import schedule
from autotune.search.costs import learned_costs, modelled_costs, row_seconds
from autotune.search.limits import Limits
from autotune.search.rungs import Costs, Plan, State
from autotune.search.trainer import JUDGED_ROWS
from autotune.targets.several import hosts, in_sequence
from autotune.trials import Screened, TrialRecord
from objectives.base import on_device
from search_spaces.deploy import DeployParams


@dataclass(frozen=True)
class Planner:
    """``points`` are those searched, ``answers`` the key that an adapter decides. ``width`` adapters train together at
    no more cost than one. ``certifying`` gives the seconds that certifying an artifact will take, of its latency in
    ms and the seconds to answer a row."""

    config: StudyConfig
    prepared: Prepared
    screened: Mapping[DeployParams, Screened]
    points: Sequence[DeployParams]
    limits: Limits
    budget: schedule.Budget
    answers: str
    width: int
    certifying: Callable[[float, float], float]

    def plan(self, state: State, records: Sequence[TrialRecord], selected: int | None) -> Plan:
        """``selected`` is the number of the trial that would be chosen now."""
        known = {p.label: {key: m.value for key, m in self.screened[p].values.items()} for p in self.points}
        plan = Plan(self.config.file.rungs, known, self.config.directions(), self.limits.now(), self.budget,
                    self.width, self._costs(state, records, selected), self.answers)
        return plan if self.config.file.early_stop_error else replace(plan, least_gain=0.0, skips=False)

    def judged_points(self) -> list[DeployParams]:
        """Those that judging an adapter tells of, all by one pass over the rows: the ones at full precision, or where
        there is none, the one whose artifact is the largest.

        Rounding to 4 bits early in a training moves answers more than it does in the end, and costs as much as asking
        them: searches that judged at more roundings found their fronts later (benchmarks/RESULTS.md).
        """
        largest = max(self.points, key=lambda p: self.screened[p].values["size_mb"].value)
        return [p for p in self.points if rounding(p) == FULL] or [largest]

    def _costs(self, state: State, records: Sequence[TrialRecord], selected: int | None) -> Costs:
        """By the clock where time is the budget; else by the model, which gives the same search again."""
        if self.budget.time_s is not None:
            learned = learned_costs(state.adapters, records, self.width, self._reserve(records, selected))
            # At the highest precision an adapter answers no faster than at the slowest point.
            first = max(learned.score.values(), default=0.0) if self.limits.need_tuned else 0.0
            return replace(learned, first=first, reserves=self._reserves(records))
        data, work = self.prepared.data, self.prepared.workload
        batch_size = statistics.fmean([a.params.batch_size for a in state.adapters] or [8])
        steps = statistics.fmean([a.steps for a in state.adapters] or [100])
        firsts = {p: s.values.get("ttft_ms.p50") for p, s in self.screened.items()}
        return modelled_costs(
            {p: m.value / 1e3 if m else 0.0 for p, m in firsts.items()}, prompt_tokens=work.prompt_tokens or 0,
            row_tokens=statistics.fmean(len(e.prompt) for e in data.train), rows=len(data.valid),
            answer_tokens=statistics.fmean(len(e.answer) for e in data.train), asked=JUDGED_ROWS,
            changed=layer_parameters(self.prepared.facts), batch_size=batch_size, steps=steps,
        )

    def spare_s(self, spent_s: float, records: Sequence[TrialRecord], selected: int | None) -> float:
        """Seconds of the time budget that are left once the certificate has had its own; 0 without such a budget."""
        return 0.0 if self.budget.time_s is None else max(
            0.0, self.budget.time_s - spent_s - self._reserve(records, selected))

    def _reserve(self, records: Sequence[TrialRecord], selected: int | None) -> float:
        """Seconds to keep back for the certificate: those of the finalist that would be the first now, or of the
        slowest that may be."""
        if not self.config.file.certificate.finalists:
            return 0.0
        return self._certificate_s([r.deploy for r in records if r.number == selected] or list(self.screened), records)

    def _reserves(self, records: Sequence[TrialRecord]) -> dict[str, float]:
        """By label, the seconds of a certificate were a point's artifact the first finalist."""
        if not self.config.file.certificate.finalists:
            return {}
        return {p.label: self._certificate_s([p], records) for p in self.points}

    def _certificate_s(self, chosen: Sequence[DeployParams], records: Sequence[TrialRecord]) -> float:
        """Seconds that a certificate of the slowest of these points takes."""
        first = self._slowest(chosen, "ttft_ms.p50", "", records)
        row_s = self._row_s(chosen, first, records)
        places = hosts(self.config.file)
        # A row takes as much longer on a further device as its first token does there.
        slower = row_s * 1e3 / first if row_s and first else 1.0
        rows_s = {name: self._slowest(chosen, "ttft_ms.p50", name, records) / 1e3 * slower or row_s or 0.1
                  for name in places}
        return in_sequence((host, self.certifying(self._slowest(chosen, "latency_ms.p50", name, records), rows_s[name]))
                           for name, host in places.items())

    def _row_s(
        self, points: Sequence[DeployParams], first_ms: float, records: Sequence[TrialRecord]
    ) -> float | None:
        """Seconds of a row's answer at these points; where none was asked there, from others' by the first token."""
        rows = len(self.prepared.data.valid)
        if own := row_seconds([r for r in records if r.deploy in points], rows):
            return own
        others = row_seconds(records, rows)
        theirs = self._slowest([r.deploy for r in records if r.state == "COMPLETE"], "ttft_ms.p50", "", records)
        return others * max(1.0, first_ms / theirs) if others and theirs else others

    def _slowest(
        self, points: Sequence[DeployParams], key: str, device: str, records: Sequence[TrialRecord]
    ) -> float:
        """Of these points the largest value of a time on a device in ms, before any training or in a trial; 0 where
        none is known yet."""
        key = on_device(key, device)
        found = [self.screened[point].values.get(key) for point in points]
        found += [r.values.get(key) for r in records if r.deploy in points]
        return max((m.value for m in found if m), default=0.0)
