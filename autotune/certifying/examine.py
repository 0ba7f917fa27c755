"""One finalist measured anew: answers from text, timings in the certifying tier, and its logits against PyTorch's.

Nothing is read from the store but weights, and no measurement is put there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autotune import answers, predictions, stats
from autotune.certifying.certificate import Tested
from autotune.certifying.evidence import Measured, from_two, judged_by, requests_needed
from autotune.constraints import Constraint
from autotune.errors import ScoreError
from autotune.pipeline import stages
from autotune.preparation import Prepared
from autotune.questions import Questions, latency_task, probe_request, text_task
from autotune.report.results import timing_json
from autotune.run_folder import RunFolder
from autotune.search.limits import Limits
from autotune.search.scoring import Scorer
from autotune.stats import Measurement
from autotune.storage.stage_runner import StageRunner
from autotune.storage.store import Entry
from autotune.targets.several import Site
from autotune.trials import Timed, TrialRecord
from objectives.base import OBJECTIVES, ROW_SHARES, is_answers, name_of, on_device, split_device
from objectives.latency import VALUES, values
from objectives.result import ProbeResult
from objectives.session import min_generator_length
from objectives.size import size_bytes, size_mb
from objectives.steadiness import Steadiness
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

_STAGE = "certify"
_LOGIT_PROMPTS = 8
#: Fresh processes whose memory and load time are read where a limit is on them: one reading has no interval.
_READINGS = 5


@dataclass(frozen=True)
class Tier:
    """How long the timing of one finalist may take, and how long the machine is loaded before it, in seconds."""

    max_seconds: float
    sustain_seconds: float


@dataclass(frozen=True)
class Seen:
    """One finalist on one device: its values by key, what each of the device's constraints is judged by, how it was
    timed, and its answers to the test rows."""

    values: Mapping[str, Measurement]
    tested: Mapping[str, Tested]
    timing: Mapping[str, Any]
    told: Sequence[str]
    right: tuple[bool, ...]


class Examiner:
    """Measures artifacts for a certificate on one device of the study. ``adapter`` gives the trained adapter of some
    parameters."""

    def __init__(
        self, prepared: Prepared, questions: Questions, run: StageRunner, scorer: Scorer, folder: RunFolder,
        limits: Limits, tier: Tier, adapter: Callable[[AdapterParams], Entry], site: Site,
    ) -> None:
        self._at, self._run, self._scorer, self.site = prepared, run, scorer, site
        self._ask = replace(questions, asked=site.asked(questions.asked))
        self._folder, self._limits, self._tier, self._adapter = folder, limits, tier, adapter
        self._baseline_told: list[str] | None = None

    @property
    def rows(self) -> int:
        """How many rows the test split has."""
        return len(self._at.data.test)

    def seen(
        self, record: TrialRecord, confidence: float, constraints: Sequence[Constraint], spare_s: float = 0.0
    ) -> Seen:
        """What the device tells of one trial, its intervals at ``confidence``; of ``constraints`` it judges its own.

        It is timed about ``spare_s`` seconds longer than these need. Raises StageError.
        """
        constraints = [replace(c, objective=split_device(c.objective)[0]) for c in constraints
                       if split_device(c.objective)[1] == self.site.name]
        name = f"trial-{record.number}"
        artifact = self._folder.artifacts / name
        beside = self._beside(constraints)
        timed = self._time(artifact, name, confidence, beside, constraints, more_requests(record, spare_s))
        state = answers.timed(timed, self._ask.asked, confidence, beside.label)
        told = self._answers(artifact, name)
        runs = self._openings(artifact, name, constraints, timed)
        found, ratios = self._values(artifact, told, runs, confidence), state.ratios if state else {}
        strict = self._values(artifact, told, runs, stats.halved(confidence)) if any(
            from_two(c, ratios) for c in constraints) else {}
        measured = Measured(found, self._right(told), _timings(timed), ratios, _unsteady(state), strict)
        baseline = self._baseline(confidence, constraints, measured.ratios)
        decided = {c.expr: judged_by(c, measured, baseline, confidence) for c in constraints}
        about = {"probe": timed.facts, **(timing_json(state) or {}),
                 "asked": asdict(timed.timing.asked) if timed.timing else None}
        return Seen(found, decided, about, told, measured.right)

    def logits(self, record: TrialRecord) -> Mapping[str, Any]:
        """The trial's next-token logits against PyTorch's, on this machine. Raises StageError."""
        name = f"trial-{record.number}"
        artifact = self._folder.artifacts / name
        target, adapter = self._at.target, self._adapter(record.adapter).path
        found: Mapping[str, Any] = self._run.call(
            f"comparing {name}'s logits with PyTorch", stages.compare_logits, self._at.base.path, adapter, artifact,
            self._prompts(), target.provider, target.threads, min_generator_length(artifact))
        return found

    def _beside(self, constraints: Sequence[Constraint]) -> DeployParams:
        """What finalists are timed by turns with: what a limit on times is relative to, where there is such a one."""
        relative = any(c.relative and name_of(c.objective) in VALUES for c in constraints)
        return self._at.reference if relative else self._at.pace

    def _time(
        self, artifact: Path, name: str, confidence: float, beside: DeployParams, constraints: Sequence[Constraint],
        more: int = 0,
    ) -> ProbeResult:
        """Requests enough for every percentile that is asked for and ``more``, by turns with the base's artifact
        ``beside``."""
        at = self._at
        if any(c.relative and c.offset for c in constraints):  # percentiles of two models are held together
            confidence = stats.halved(confidence)
        reference, resident = self._scorer.beside(self.site, size_bytes(artifact), beside)
        task = latency_task(
            at.data, at.workload, self._ask, samples=requests_needed(self._ask.asked, confidence) + more,
            max_seconds=self._tier.max_seconds, sustain_seconds=self._tier.sustain_seconds,
            reference=reference, resident=resident)
        return self._probe(artifact, task, f"timing {name}", timed=True)

    def _answers(self, artifact: Path, name: str) -> list[str]:
        """To the test rows' texts, encoded by the artifact's own tokenizer; kept in the run folder."""
        at = self._at
        asked = self._probe(artifact, text_task(at.data, at.data.test, self._ask), f"asking {name} the test rows",
                            timed=False)
        told = answers.given(asked, at.data)
        kept_as = f"{on_device('certificate', self.site.name)}-{name}.csv"
        predictions.save(self._folder.predictions / kept_as, self._references(), told)
        return told

    def _values(
        self, artifact: Path, told: Sequence[str], runs: Sequence[ProbeResult], confidence: float
    ) -> dict[str, Measurement]:
        """Everything that is known of an artifact by its answers, its timing and the processes that opened it."""
        found = answers.system_measurements(runs[0], self._ask.asked, confidence) if runs else {}
        if told:
            found |= self._scores(told, confidence)
        if len(runs) > 1:
            of = {"peak_rss_mb": [r.peak_rss_mb for r in runs], "load_ms": [r.load_ms for r in runs]}
            found |= {key: stats.student(of[key], confidence, OBJECTIVES[key].unit) for key in of}
        return {**found, "size_mb": stats.exact(size_mb(artifact), 1, OBJECTIVES["size_mb"].unit)}

    def _scores(self, told: Sequence[str], confidence: float) -> dict[str, Measurement]:
        """Every metric of the answers."""
        at, ask = self._at, self._ask
        found = self._run.call("scoring", stages.score_answers, answers.metric_names(at.data, ask.asked), told,
                               self._references(), at.data.labels, confidence, ask.metrics_dir, error=ScoreError)
        right = self._right(told)
        for key in ROW_SHARES:
            if key in found:
                found[key] = stats.exact_proportion(sum(right), len(right), confidence)
        return found

    def _openings(
        self, artifact: Path, name: str, constraints: Sequence[Constraint], first: ProbeResult
    ) -> list[ProbeResult]:
        """The timing, and further fresh processes where a limit is on memory or load time."""
        if not {c.objective for c in constraints} & {"peak_rss_mb", "load_ms"}:
            return [first]
        task = latency_task(self._at.data, self._at.workload, self._ask, samples=1, max_seconds=0.0)
        return [first] + [self._probe(artifact, task, f"opening {name} again", timed=True)
                          for _ in range(_READINGS - 1)]

    def _baseline(
        self, confidence: float, constraints: Sequence[Constraint], ratios: Mapping[str, Measurement]
    ) -> Measured | None:
        """As much of the baseline as relative limits need; its answers are to the same rows, and asked for once.

        It is timed only for what the ``ratios`` of the timing by turns do not tell.
        """
        relative = [c for c in constraints if c.relative]
        if not relative:
            return None
        best = self._limits.adapter
        folder = self._scorer.baseline_artifact(self._adapter(best) if best else None)
        told: list[str] = []
        if any(is_answers(c.objective) for c in relative):
            if self._baseline_told is None:
                self._baseline_told = self._answers(folder, "baseline")
            told = self._baseline_told
        runs: list[ProbeResult] = []
        state = None
        if any(from_two(c, ratios) and not is_answers(c.objective) and c.objective != "size_mb" for c in relative):
            beside = self._beside(constraints)
            timed = self._time(folder, "the baseline", confidence, beside, constraints)
            runs = self._openings(folder, "the baseline", relative, timed)
            state = answers.timed(timed, self._ask.asked, confidence, beside.label)
        strict = self._values(folder, told, runs, stats.halved(confidence))
        return Measured({}, self._right(told) if told else (), {}, {}, _unsteady(state), strict)

    def _probe(self, artifact: Path, task: Mapping[str, Any], title: str, *, timed: bool) -> ProbeResult:
        request = probe_request(artifact, self.site.target, min_generator_length(artifact), [task])
        return self._run.fresh(_STAGE, self.site.titled(title), request, timed=timed, device=self.site.device)

    def _references(self) -> list[str]:
        return [e.answer_text for e in self._at.data.test]

    def _right(self, told: Sequence[str]) -> tuple[bool, ...]:
        return tuple(predictions.is_right(a, r) for a, r in zip(told, self._references(), strict=True))

    def _prompts(self) -> list[tuple[int, ...]]:
        rows = self._at.data.test
        return [e.prompt for e in rows[:: max(1, len(rows) // _LOGIT_PROMPTS)][:_LOGIT_PROMPTS]]


def _timings(result: ProbeResult) -> dict[str, Sequence[float]]:
    return {name: values(name, result.samples) for name in VALUES}


def _unsteady(timed: Timed | None) -> Steadiness | None:
    """How the machine did not keep still; None where it did."""
    return None if timed is None or timed.steadiness.state == "steady" else timed.steadiness


def more_requests(record: TrialRecord, spare_s: float) -> int:
    """How many requests by turns with the reference's fit into ``spare_s`` seconds, as the search timed the trial on
    the target."""
    times = [m.value for key, m in record.values.items() if name_of(key) == "latency_ms" and not split_device(key)[1]]
    return int(spare_s * 1e3 / (2 * max(times))) if times and max(times) > 0 else 0
