"""One adapter at one deploy point: artifact, answers, metrics; and the base's own artifact, before any adapter."""

from __future__ import annotations

import json
import shutil
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune import answers, stats
from autotune.errors import AssemblyError, ScoreError
from autotune.pipeline import stages
from autotune.pipeline.template_params import template_params
from autotune.preparation import Prepared
from autotune.questions import (
    Questions,
    Reference,
    answers_task,
    probe_request,
    row_order,
    stopping,
)
from autotune.run_folder import RunFolder, link_tree
from autotune.search.sequential import stop_rule
from autotune.search.timing import Timer, info_of
from autotune.stats import Measurement
from autotune.storage import keys
from autotune.storage.entry_key import Key
from autotune.storage.stage_runner import StageRunner
from autotune.storage.store import Entry
from autotune.targets.several import Site, site
from autotune.trials import Scored, Screened, StageRecord, Stopped
from objectives.base import MB, OBJECTIVES
from search_spaces.deploy import DeployParams

_MAX_CHECKED_PROMPTS = 8
_LINK_TRIES = 3


class Scorer:
    """Scores adapters at deploy points, and keeps the artifacts of those that are asked to be kept."""

    def __init__(
        self, prepared: Prepared, questions: Questions, run: StageRunner, folder: RunFolder,
        machine: Mapping[str, Any], further: Sequence[Site] = (),
    ) -> None:
        """``machine`` is what of the target stored measurements depend on, ``further`` where else is measured."""
        self._at = prepared
        self._ask = questions
        self._run = run
        self._folder = folder
        self._sites = (site("", run.device, prepared.target, machine), *further)
        self._timer = Timer(prepared, questions, run, self._sites, self._point, self._point_key)
        self._order = row_order(prepared.data)
        self._screened: dict[DeployParams, Screened] = {}
        self._links: dict[Key, Entry] = {}
        self._linking: dict[Key, threading.Lock] = defaultdict(threading.Lock)  # the reference is wanted by every trial
        self._forgotten: set[Key] = set()

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where is measured: the target, then the study's further devices."""
        return self._sites

    def held(self) -> tuple[bool, int]:
        """Whether the store has every template of the deploy points, and how many of the points."""
        at, store = self._at, self._run.store
        templates = {template_params(p, at.target.provider, at.context_length) for p in (*at.points, at.reference)}
        whole = all(store.get(keys.template(at.base.key, t)) for t in templates)
        return whole, sum(store.get(self._point_key(p)) is not None for p in at.points)

    def screen(self, point: DeployParams) -> Screened:
        """Measure the base's own artifact on every device: what does not depend on the adapter. Raises StageError.

        Where requests are the rows' own, their latency is the adapter's, and only the size is known here.
        """
        entry = self._point(point)
        size, made = {"size_mb": _size(info_of(entry.path))}, {"point": _record(entry)}
        if self._at.workload.from_rows:
            self._screened[point] = Screened(point, size, made)
            return self._screened[point]
        found = self._timer.times(entry.key, entry.path, point, by_turns=point != self._at.pace)
        made |= {name: _record(probe) for name, probe in found.entries.items()}
        self._screened[point] = Screened(point, {**found.values, **size}, made, found.timed, found.elsewhere)
        return self._screened[point]

    def score(self, adapter: Entry | None, point: DeployParams, needed: int | None = None) -> Scored:
        """Measure one pair; ``adapter`` None asks the base itself, untimed. Raises StageError.

        With ``needed`` scoring stops once that many right answers have become out of reach (see
        ``sequential.stop_rule``); ``Scored.stopped`` then tells, and accuracy is of the rows until there.
        """
        at, ask = self._at, self._ask
        artifact = self._key(adapter, point)
        made: dict[str, Entry] = {}
        values: dict[str, Measurement] = {}
        own = None
        if adapter is not None and at.workload.from_rows:
            folder = self._taken(adapter, point, artifact, made)
            own = self._timer.times(artifact, folder, point)
            made |= own.entries
            values |= own.values
        elif adapter is not None:
            values |= self._screened[point].values
        entry = self._answers(adapter, point, artifact, needed, made)
        result, size = answers.load(entry.path)
        values["size_mb"] = stats.exact(size / MB, 1, OBJECTIVES["size_mb"].unit)
        stopped: Stopped | None = None
        told: tuple[str, ...] = ()
        if result.stopped_after is not None:
            right = answers.right(result, at.data, self._order)
            stopped = Stopped(result.stopped_after, len(at.data.valid), right, needed or 0, ask.stop_error)
            values["accuracy"] = stats.proportion(right, result.stopped_after, ask.confidence)
        else:
            references = [e.answer_text for e in at.data.valid]
            told = tuple(answers.texts(result, at.data, self._order))
            values |= self._run.call("scoring", stages.score_answers, answers.metric_names(at.data, ask.asked), told,
                                     references, at.data.labels, ask.confidence, ask.metrics_dir, error=ScoreError)
        timed_on_base = adapter is not None and not at.workload.from_rows
        on_base = set(self._screened[point].values) - {"size_mb"} if timed_on_base else set()
        shared = self._screened[point].stages if timed_on_base else {}
        return Scored(values, {**shared, **{n: _record(e) for n, e in made.items()}}, artifact, frozenset(on_base),
                      stopped, own.timed if own else None, told, own.elsewhere if own else {})

    def check_reference(self) -> Mapping[str, Any]:
        """Export the untrained base at the highest precision and hold its logits against PyTorch's.

        Raises:
            ExportError: they disagree, so no trial's parameters could be blamed for what follows.
        """
        at = self._at
        key = self._point_key(at.reference)

        def artifact() -> tuple[Path, int]:
            entry = self._point(at.reference)
            return entry.path / stages.ARTIFACT_FOLDER, info_of(entry.path)["min_generator_length"]

        step = max(1, len(at.data.valid) // _MAX_CHECKED_PROMPTS)
        prompts = [e.prompt for e in at.data.valid[::step][:_MAX_CHECKED_PROMPTS]]
        entry = self._run.export_check(at.base, key, prompts, at.target, artifact)
        check: Mapping[str, Any] = json.loads((entry.path / stages.INFO_FILE).read_text(encoding="utf-8"))
        return check

    def point(self, point: DeployParams) -> Entry:
        """The base's own artifact at a deploy point. Raises StageError."""
        return self._point(point)

    def baseline_artifact(self, adapter: Entry | None) -> Path:
        """An adapter's artifact at the highest precision, or the untrained base's own."""
        point = self._at.reference
        folder = self._taken(adapter, point, self._key(adapter, point), {})
        return folder / stages.ARTIFACT_FOLDER

    def beside(self, at: Site, size: int, point: DeployParams) -> tuple[Reference | None, bool]:
        """What an artifact may be timed by turns with on a device (`Timer.beside`)."""
        return self._timer.beside(at, size, point)

    def keep(self, adapter: Entry, point: DeployParams, name: str) -> None:
        """The artifact into the run folder under ``name``, made again if the store has it no more."""
        target = self._folder.artifacts / name
        if not target.exists():
            folder = self._taken(adapter, point, self._key(adapter, point), {})
            target.parent.mkdir(parents=True, exist_ok=True)
            link_tree(folder / stages.ARTIFACT_FOLDER, target)

    def forget(self, artifact: Key, name: str | None) -> None:
        """Free the disk of an artifact that is no longer wanted; its measurement stays."""
        if name:
            shutil.rmtree(self._folder.artifacts / name, ignore_errors=True)
        if artifact not in self._forgotten:
            self._forgotten.add(artifact)
            self._links.pop(artifact, None)
            shutil.rmtree(self._folder.scratch / "artifact" / artifact.digest, ignore_errors=True)
            self._run.store.drop(artifact)

    def _answers(
        self, adapter: Entry | None, point: DeployParams, artifact: Key, needed: int | None, made: dict[str, Entry]
    ) -> Entry:
        at, ask = self._at, self._ask
        task = answers_task(at.data, ask, self._order)
        whole = keys.probe("answers", artifact, [task], self._sites[0].fingerprint, "screen")
        key = whole
        if needed is not None and self._run.store.get(whole) is None:
            rule = stop_rule(len(at.data.valid), needed, ask.stop_error)
            if rule:
                task = stopping(task, at.data, self._order, rule)
                key = keys.probe("answers", artifact, [task], self._sites[0].fingerprint, "screen")

        def request() -> tuple[Mapping[str, Any], int]:
            folder = self._taken(adapter, point, artifact, made)
            info = info_of(folder)
            asked = probe_request(folder / stages.ARTIFACT_FOLDER, at.target, info["min_generator_length"], [task])
            return asked, info["size_bytes"]

        entry = self._run.measurement("answers", key, request, f"scoring {point.label}", timed=False)
        made["answers"] = entry
        if key != whole and answers.load(entry.path)[0].stopped_after is None:
            self._run.copy("answers", whole, entry)  # it got to the end, so it holds for whoever needs all rows
        return entry

    def _point_key(self, point: DeployParams) -> Key:
        at = self._at
        template = template_params(point, at.target.provider, at.context_length)
        return keys.point(keys.template(at.base.key, template), point, at.target.provider, at.context_length)

    def _point(self, point: DeployParams) -> Entry:
        at = self._at
        template = template_params(point, at.target.provider, at.context_length)
        return self._run.point(at.base, template, point, at.target.provider, at.context_length)

    def _key(self, adapter: Entry | None, point: DeployParams) -> Key:
        """Of the artifact; the base's own is the point's."""
        if adapter is None:
            return self._point_key(point)
        at = self._at
        template = keys.template(at.base.key, template_params(point, at.target.provider, at.context_length))
        tokenizer = keys.tokenizer(template, at.data.valid, at.data.chat)
        return keys.artifact(self._point_key(point), tokenizer, adapter.key, at.data.eos_id)

    def _taken(self, adapter: Entry | None, point: DeployParams, key: Key, made: dict[str, Entry]) -> Path:
        """The artifact's folder: the point's own, or a link of ours that stays whole if another run frees it."""
        if adapter is None:
            return self._point(point).path
        with self._linking[key]:
            if key not in self._links:
                self._links[key] = self._link(adapter, point, key)
        made["assemble"] = self._links[key]
        return self._folder.scratch / "artifact" / key.digest

    def _link(self, adapter: Entry, point: DeployParams, key: Key) -> Entry:
        at = self._at
        for _ in range(_LINK_TRIES):
            template = template_params(point, at.target.provider, at.context_length)
            tokenizer = self._run.tokenizer(at.base, template, at.data)
            entry = self._run.artifact(key, at.base, self._point(point), tokenizer, adapter, at.data.eos_id,
                                       point.label)
            folder = self._folder.scratch / "artifact" / key.digest
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                link_tree(entry.path, folder)
            except (OSError, shutil.Error) as error:
                if self._run.store.get(key):  # not freed under us by another run: a real fault
                    raise AssemblyError(f"{entry.path}: {error}") from error
            else:
                self._forgotten.discard(key)
                return entry
        raise AssemblyError(f"another run on this store freed {point.label} {_LINK_TRIES} times while it was taken")


def _record(entry: Entry) -> StageRecord:
    return StageRecord(str(entry.key), round(entry.seconds, 3), entry.cached)


def _size(info: Mapping[str, Any]) -> Measurement:
    return stats.exact(info["size_bytes"] / MB, 1, OBJECTIVES["size_mb"].unit)
