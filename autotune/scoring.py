"""One adapter at one deploy point: artifact, probe, metrics."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune import answers
from autotune.errors import AssemblyError, ScoreError
from autotune.pipeline import stages
from autotune.preparation import Prepared
from autotune.questions import Questions, answers_task, latency_task, probe_request, target_fingerprint
from autotune.run_folder import RunFolder, link_tree
from autotune.stage_runner import StageRunner
from autotune.store import Entry, Key, library_version, make_key
from autotune.trials import Scored, StageRecord
from objectives.request import PROTOCOL
from search_spaces.deploy import DeployParams

_MAX_CHECKED_PROMPTS = 8
_LINK_TRIES = 3


class Scorer:
    """Scores adapters at deploy points, and keeps the artifacts of those that are asked to be kept."""

    def __init__(
        self, prepared: Prepared, questions: Questions, run: StageRunner, folder: RunFolder,
        machine: Mapping[str, Any],
    ) -> None:
        self._at = prepared
        self._ask = questions
        self._run = run
        self._folder = folder
        self._machine = machine
        self._links: dict[Key, Entry] = {}
        self._forgotten: set[Key] = set()

    def score(self, adapter: Entry | None, point: DeployParams, *, timed: bool = True) -> Scored:
        """Measure one pair; ``adapter`` None is the base itself. Raises StageError."""
        at, ask = self._at, self._ask
        artifact_key, _ = self._run.artifact_key(at.base, at.data_entry, adapter, point, at.target.provider,
                                                 at.context_length)
        tasks = [answers_task(at.data, ask)]
        if timed:  # first, while the process is as fresh as the one that will serve
            tasks.insert(0, latency_task(at.data, at.workload, ask))
        inputs = {
            "artifact": str(artifact_key), "tasks": tasks, "protocol": PROTOCOL, "tier": "screen",
            "target": target_fingerprint(at.target, self._machine),
            "runtime": {n: library_version(n) for n in ("onnxruntime", "onnxruntime-genai")},
        }
        key = make_key("probe", 1, inputs)
        made: dict[str, Entry] = {}
        request, size = None, 0
        if self._run.store.get(key) is None:  # a stored measurement needs no artifact
            made["assemble"], path, info = self._linked(adapter, point)
            request = probe_request(path, at.target, info["min_generator_length"], tasks)
            size = info["size_bytes"]
        probe = self._run.measurement(key, {**inputs, "tasks": len(tasks)}, request, size, f"measuring {point.label}")
        result, size = answers.load(probe.path)
        references = [e.answer_text for e in at.data.valid]
        values = answers.system_measurements(result, size, ask.asked, ask.confidence)
        values |= self._run.call("scoring", stages.score_answers, answers.metric_names(at.data, ask.asked),
                                 answers.texts(result, at.data), references, at.data.labels, ask.confidence,
                                 ask.metrics_dir, error=ScoreError)
        records = {name: StageRecord(str(e.key), round(e.seconds, 3), e.cached) for name, e in
                   {**made, "probe": probe}.items()}
        return Scored(values, records, artifact_key)

    def check_reference(self) -> Mapping[str, Any]:
        """Export the untrained base at the highest precision and hold its logits against PyTorch's.

        Raises:
            ExportError: they disagree, so no trial's parameters could be blamed for what follows.
        """
        at = self._at
        key, _ = self._run.artifact_key(at.base, at.data_entry, None, at.reference, at.target.provider,
                                        at.context_length)

        def linked() -> tuple[Path, int]:
            _, path, info = self._linked(None, at.reference)
            return path, info["min_generator_length"]

        step = max(1, len(at.data.valid) // _MAX_CHECKED_PROMPTS)
        prompts = [e.prompt for e in at.data.valid[::step][:_MAX_CHECKED_PROMPTS]]
        entry = self._run.export_check(at.base, key, prompts, at.target, linked)
        check: Mapping[str, Any] = json.loads((entry.path / stages.INFO_FILE).read_text(encoding="utf-8"))
        return check

    def keep(self, adapter: Entry | None, point: DeployParams, name: str) -> None:
        """The artifact into the run folder under ``name``, made again if the store has it no more."""
        target = self._folder.artifacts / name
        if not target.exists():
            _, path, _ = self._linked(adapter, point)
            target.parent.mkdir(parents=True, exist_ok=True)
            link_tree(path, target)

    def forget(self, artifact: Key, name: str | None) -> None:
        """Free the disk of an artifact that is no longer wanted; its measurement stays."""
        if name:
            shutil.rmtree(self._folder.artifacts / name, ignore_errors=True)
        if artifact not in self._forgotten:
            self._forgotten.add(artifact)
            self._links.pop(artifact, None)
            shutil.rmtree(self._folder.scratch / "artifact" / artifact.digest, ignore_errors=True)
            self._run.store.drop(artifact)

    def _linked(self, adapter: Entry | None, point: DeployParams) -> tuple[Entry, Path, Mapping[str, Any]]:
        """The stored artifact through a link of our own, which stays whole if another run frees its entry."""
        at = self._at
        key, _ = self._run.artifact_key(at.base, at.data_entry, adapter, point, at.target.provider, at.context_length)
        if key not in self._links:
            self._links[key] = self._link(adapter, point)
        entry = self._links[key]
        folder = self._folder.scratch / "artifact" / key.digest
        info: Mapping[str, Any] = json.loads((folder / stages.INFO_FILE).read_text(encoding="utf-8"))
        return entry, folder / stages.ARTIFACT_FOLDER, info

    def _link(self, adapter: Entry | None, point: DeployParams) -> Entry:
        at = self._at
        for _ in range(_LINK_TRIES):
            entry = self._run.artifact(at.base, at.data_entry, adapter, point, at.target.provider, at.context_length)
            folder = self._folder.scratch / "artifact" / entry.key.digest
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                link_tree(entry.path, folder)
            except (OSError, shutil.Error) as error:
                if self._run.store.get(entry.key):  # not freed under us by another run: a real fault
                    raise AssemblyError(f"{entry.path}: {error}") from error
            else:
                self._forgotten.discard(entry.key)
                return entry
        raise AssemblyError(f"another run on this store freed {point.label} {_LINK_TRIES} times while it was taken")
