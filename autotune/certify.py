"""After the search: the finalists measured again, each on its own artifact and on rows that the search never saw."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune import answers, pareto, predictions, stats, steadiness
from autotune.certificate import Certificate, Evidence, certify
from autotune.config import StudyConfig
from autotune.constraints import Constraint
from autotune.errors import ScoreError, StageError
from autotune.evidence import Measured, requests_needed, tested
from autotune.keys import digest
from autotune.limits import Limits
from autotune.pipeline import stages
from autotune.preparation import Prepared
from autotune.questions import Questions, latency_task, probe_request, text_task
from autotune.report.certificate import as_json, sentences
from autotune.report.outcome import Outcome
from autotune.report.terminal import Terminal
from autotune.run_folder import RunFolder
from autotune.scoring import Scorer
from autotune.stage_runner import StageRunner
from autotune.stats import Measurement
from autotune.store import Entry, write_atomically
from autotune.study_file import parse_duration
from autotune.targets.result import ProbeResult
from autotune.targets.timing import Timing
from autotune.trials import TrialRecord
from objectives.base import MB, OBJECTIVES
from objectives.latency import VALUES, values
from objectives.session import min_generator_length
from search_spaces.deploy import DeployParams

_LOGIT_PROMPTS = 8
#: Fresh processes whose memory and load time are read where a limit is on them: one reading has no interval.
_READINGS = 5
_READ_ONCE = ("memory", "load")


class Certifier:
    """Measures finalists anew: nothing is read from the store but their weights, and no measurement is kept there."""

    def __init__(
        self, config: StudyConfig, prepared: Prepared, questions: Questions, run: StageRunner, scorer: Scorer,
        folder: RunFolder, limits: Limits,
    ) -> None:
        self._config, self._at, self._ask, self._run = config, prepared, questions, run
        self._scorer, self._folder, self._limits = scorer, folder, limits
        self._units = {key: objective.unit for key, objective in config.measured().items()}
        self._baselines: dict[float, Measured] = {}
        self._right: tuple[bool, ...] | None = None

    def certify(
        self, records: Sequence[TrialRecord], outcome: Outcome, adapters: Mapping[int, Entry], terminal: Terminal
    ) -> Mapping[str, Any] | None:
        """The certificate as results.json holds it; None where the study asks for none or there is nothing to look at.

        ``adapters`` are the trained adapters by trial. A certificate that PASSed stays as it is while its finalists
        and its question do; any other is made anew.
        """
        config = self._config
        by_number = {r.number: r for r in records}
        front = [by_number[n].candidate() for n in outcome.front]
        signed = [(key, o.direction) for key, o in config.objectives]
        order = pareto.rank(front, signed, outcome.policy)[: config.file.certificate.finalists]
        if not order or not self._at.data.test:
            return None
        question = self._question([by_number[n] for n in order])
        if kept := self._kept(question):
            terminal.say("Certified before, and nothing it rests on has changed:")
            for line in kept["text"]:
                terminal.say(line)
            return kept
        constraints = self._limits.now()

        def examine(trial: int, confidence: float) -> Evidence | str:
            try:
                return self._examine(by_number[trial], adapters[trial], confidence, constraints)
            except StageError as error:
                return f"{error.stage}: {error.reason}"

        found = certify(order, constraints, config.file.confidence, examine)
        record = self._record(found, by_number)
        write_atomically(self._folder.certificate, json.dumps({"question": question, "certificate": record}))
        for line in record["text"]:
            terminal.say(line)
        return record

    def _record(self, found: Certificate, by_number: Mapping[int, TrialRecord]) -> dict[str, Any]:
        labels = {number: record.deploy.label for number, record in by_number.items()}
        keys = [key for key, _ in self._config.objectives]
        return as_json(found, self._units, sentences(found, labels, keys, self._units, len(self._at.data.test)))

    def _question(self, finalists: Sequence[TrialRecord]) -> str:
        """A digest of what a certificate answers."""
        file = self._config.file
        return digest([[str(r.artifact) for r in finalists], [[c.expr, c.bound] for c in self._limits.now()],
                       file.confidence, file.policy, file.certificate.model_dump(), self._scorer.target])

    def _kept(self, question: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self._folder.certificate.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        kept: dict[str, Any] = found["certificate"]
        return kept if found["question"] == question and kept["verdict"] == "PASS" else None

    def _examine(
        self, record: TrialRecord, adapter: Entry, confidence: float, constraints: Sequence[Constraint]
    ) -> Evidence:
        name = f"trial-{record.number}"
        artifact = self._folder.artifacts / name
        baseline = None
        if any(c.relative for c in constraints):
            baseline = self._baseline(confidence)
        found, timing = self._measure(artifact, record.deploy, name, confidence, constraints)
        logits = self._run.call(
            f"comparing {name}'s logits with PyTorch", stages.compare_logits, self._at.base.path, adapter.path, artifact,
            self._prompts(), self._at.target.provider, self._at.target.threads, min_generator_length(artifact))
        decided = {c.expr: tested(c, found, baseline, confidence) for c in constraints}
        return Evidence(found.values, decided, timing, logits)

    def _baseline(self, confidence: float) -> Measured:
        """The baseline on the same rows; its own times are those of the untrained base's artifact, which serves as
        the reference of every timing too."""
        if confidence not in self._baselines:
            folder, label = self._scorer.baseline_artifact(self._limits.adapter)
            self._baselines[confidence], _ = self._measure(folder, self._at.reference, label, confidence, ())
        return self._baselines[confidence]

    def _measure(
        self, artifact: Path, point: DeployParams, name: str, confidence: float, constraints: Sequence[Constraint]
    ) -> tuple[Measured, dict[str, Any]]:
        at = self._at
        timed = self._time(artifact, point, name, confidence)
        asked = self._run.fresh("certify", f"asking {name} {len(at.data.test)} test rows", probe_request(
            artifact, at.target, min_generator_length(artifact), [text_task(at.data, at.data.test, self._ask)]), timed=False)
        told = answers.of_rows(asked, at.data, range(len(at.data.test)))
        references = [e.answer_text for e in at.data.test]
        predictions.save(self._folder.predictions / f"certificate-{name}.csv", references, told)
        found = answers.system_measurements(timed, self._ask.asked, confidence)
        found |= self._run.call("scoring", stages.score_answers, answers.metric_names(at.data, self._ask.asked), told,
                                references, at.data.labels, confidence, self._ask.metrics_dir, error=ScoreError)
        right = tuple(predictions.is_right(a, r) for a, r in zip(told, references, strict=True))
        for key in ("accuracy", "exact_match"):
            if key in found:
                found[key] = stats.exact_proportion(sum(right), len(right), confidence)
        size = sum(f.stat().st_size for f in artifact.rglob("*") if f.is_file())
        found["size_mb"] = stats.exact(size / MB, 1, OBJECTIVES["size_mb"].unit)
        found |= self._readings(artifact, name, confidence, constraints, timed)
        return self._measured(found, right, timed.timing, confidence)

    def _measured(
        self, found: Mapping[str, Measurement], right: tuple[bool, ...], timing: Timing | None, confidence: float
    ) -> tuple[Measured, dict[str, Any]]:
        if timing is None:
            return Measured(found, right, {}, {}, None), {}
        samples = steadiness.used_samples(timing)
        state = steadiness.of(timing)
        keys = [key for key in found if key.partition(".")[0] in VALUES]
        ratios = {key: steadiness.ratio(timing, key, confidence) for key in keys} if timing.has_reference else {}
        timings = {name: values(name, samples) for name in VALUES}
        doubt = None if state.state == "steady" else state.sentence()
        return (Measured(found, right, timings, ratios, doubt),
                steadiness.as_json(timing, ratios, self._at.reference.label, confidence))

    def _time(self, artifact: Path, point: DeployParams, name: str, confidence: float) -> ProbeResult:
        """The certifying tier: requests enough for every percentile asked for, by turns with the reference."""
        at, settings = self._at, self._config.file.certificate
        samples = requests_needed(list(self._ask.asked), confidence)
        reference, resident = self._scorer.reference_for(artifact, point)
        task = latency_task(at.data, at.workload, self._ask, samples=samples, reference=reference, resident=resident,
                            max_seconds=parse_duration(settings.time),
                            sustain_seconds=parse_duration(settings.sustain) if settings.sustain else 0.0)
        return self._run.fresh("certify", f"timing {name}", probe_request(
            artifact, at.target, min_generator_length(artifact), [task]), timed=True)

    def _readings(
        self, artifact: Path, name: str, confidence: float, constraints: Sequence[Constraint], first: ProbeResult
    ) -> dict[str, Measurement]:
        """Memory and load time from several fresh processes where a limit is on them."""
        limited = {c.objective for c in constraints if OBJECTIVES.get(c.objective)
                   and OBJECTIVES[c.objective].source in _READ_ONCE}
        if not limited:
            return {}
        at = self._at
        task = latency_task(at.data, at.workload, self._ask, samples=1, max_seconds=0.0)
        request = probe_request(artifact, at.target, min_generator_length(artifact), [task])
        runs = [first] + [self._run.fresh("certify", f"opening {name} again", request, timed=True)
                          for _ in range(_READINGS - 1)]
        of = {"peak_rss_mb": [r.peak_rss_mb for r in runs], "load_ms": [r.load_ms for r in runs]}
        return {key: stats.student(of[key], confidence, OBJECTIVES[key].unit) for key in sorted(limited)}

    def _prompts(self) -> list[tuple[int, ...]]:
        rows = self._at.data.test
        step = max(1, len(rows) // _LOGIT_PROMPTS)
        return [e.prompt for e in rows[::step][:_LOGIT_PROMPTS]]


