"""After the search: the finalists under the policy measured again, and the certificate that follows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autotune import pareto
from autotune.certifying.certificate import Certificate, Evidence, certify
from autotune.certifying.everywhere import EveryDevice
from autotune.config import StudyConfig
from autotune.errors import StageError
from autotune.report.certificate import as_json, sentences
from autotune.report.outcome import Outcome
from autotune.report.terminal import Terminal
from autotune.run_folder import RunFolder
from autotune.search.limits import Limits
from autotune.storage.keys import digest
from autotune.storage.store import write_atomically
from autotune.trials import TrialRecord


class Certifier:
    """Certifies a run's finalists."""

    def __init__(
        self, config: StudyConfig, examiner: EveryDevice, limits: Limits, folder: RunFolder, terminal: Terminal
    ) -> None:
        self._config, self._examiner, self._limits = config, examiner, limits
        self._folder, self._terminal = folder, terminal

    def certify(
        self, records: Sequence[TrialRecord], outcome: Outcome, spare_s: float = 0.0
    ) -> Mapping[str, Any] | None:
        """The certificate as results.json holds it; None where the study wants none, or nothing is on the front.

        One that PASSed stays as it is while its finalists and what is asked of them do; any other is made anew. The
        first finalist is timed ``spare_s`` seconds longer than it has to be: time that would be lost makes its
        intervals shorter.
        """
        by_number = {r.number: r for r in records}
        finalists = self._finalists(by_number, outcome)
        if not finalists:
            return None
        question = self._question([by_number[n] for n in finalists])
        record = self._kept(question)
        if record:
            self._terminal.say("Certified before, and nothing that it rests on has changed:")
        else:
            record = self._made(finalists, by_number, spare_s)
            write_atomically(self._folder.certificate, json.dumps({"question": question, "certificate": record}))
        for line in record["text"]:
            self._terminal.say(line)
        return record

    def _finalists(self, by_number: Mapping[int, TrialRecord], outcome: Outcome) -> list[int]:
        """The first trials of the front in the policy's order, which the test split has no part in."""
        front = [by_number[n].candidate() for n in outcome.front]
        return pareto.rank(front, self._config.directions(), outcome.policy)[: self._config.file.certificate.finalists]

    def _made(
        self, finalists: Sequence[int], by_number: Mapping[int, TrialRecord], spare_s: float
    ) -> dict[str, Any]:
        constraints = self._limits.now()

        def examine(trial: int, confidence: float) -> Evidence | str:
            self._terminal.plan(f"certifying trial {trial}:")
            try:
                return self._examiner.evidence(by_number[trial], confidence, constraints,
                                               spare_s if trial == finalists[0] else 0.0)
            except StageError as error:
                return f"{error.stage}: {error.reason}"

        return self._record(certify(finalists, constraints, self._config.file.confidence, examine), by_number)

    def _record(self, found: Certificate, by_number: Mapping[int, TrialRecord]) -> dict[str, Any]:
        labels = {number: record.deploy.label for number, record in by_number.items()}
        units = {key: objective.unit for key, objective in self._config.measured().items()}
        keys = [key for key, _ in self._config.objectives]
        return as_json(found, units, sentences(found, labels, keys, units, self._examiner.rows))

    def _question(self, finalists: Sequence[TrialRecord]) -> str:
        """A digest of what a certificate answers, and on which target."""
        file = self._config.file
        return digest([[str(r.artifact) for r in finalists], [[c.expr, c.bound] for c in self._limits.now()],
                       file.confidence, file.policy, file.certificate.model_dump(), *self._examiner.measured_on])

    def _kept(self, question: str) -> dict[str, Any] | None:
        try:
            found = json.loads(self._folder.certificate.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        kept: dict[str, Any] = found["certificate"]
        return kept if found["question"] == question and kept["verdict"] == "PASS" else None
