"""Every stage of a study: what names its entry, who makes it, and of what."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from autotune import answers
from autotune.errors import AssemblyError, ExportError, StageError, TrainingError
from autotune.pipeline import stages
from autotune.pipeline.base_model import ModelSource
from autotune.pipeline.packed.job import AdapterJob
from autotune.pipeline.progress import Report
from autotune.pipeline.roundings import FULL, rounding, roundings
from autotune.pipeline.rungs import RungJob
from autotune.pipeline.template_params import TemplateParams
from autotune.pipeline.tokens import TokenizedData
from autotune.questions import Target
from autotune.report.terminal import Terminal
from autotune.run_folder import RunFolder
from autotune.storage import keys
from autotune.storage.entry_key import Key
from autotune.storage.execution import Machine, StageExecutor
from autotune.storage.store import Entry, Store
from autotune.targets.device import Device
from autotune.targets.local import Local
from autotune.workers import Workers
from objectives.result import ProbeResult
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

T = TypeVar("T")


class StageRunner:
    """Every stage of a study as one method each. What a stage raises passes through. With several workers as many
    threads may run stages at once. ``device`` is where artifacts are measured.
    """

    def __init__(
        self, store: Store, worker: Workers, folder: RunFolder, terminal: Terminal, machine: Machine,
        device: Device | None = None, further: Sequence[Device] = (),
    ) -> None:
        """``further`` are the other devices on which `measurement` and `fresh` may be told to measure."""
        self.store = store
        self.device = device or Local()
        self._devices = (self.device, *further)
        self._worker = worker
        self._folder = folder
        self._executor = StageExecutor(store, folder, terminal, machine, self._devices)

    @property
    def count(self) -> int:
        """How many stages may run at a time."""
        return self._worker.count

    def working(self) -> AbstractContextManager[None]:
        """For work of this process between stages, while others' may measure."""
        return self._executor.working()

    def stop(self) -> None:
        """End every stage that runs; they fail."""
        for device in self._devices:
            device.stop()
        self._worker.close(kill=True)

    def base(self, source: ModelSource, fingerprint: Mapping[str, str]) -> Entry:
        """The base model's folder. A folder, and a hub snapshot, are used where they lie."""
        found = dict(fingerprint)
        if source.kind in ("folder", "hub"):
            path = self.call("reading the base model", stages.make_base, source, self._folder.scratch, reporting=True)
            if source.kind == "hub":  # the snapshot's folder has the name of the commit that was fetched
                found["revision"] = path.name
            return Entry(keys.base(found, converted=False), path, 0.0, cached=True)
        key = keys.base(found, converted=True)
        entry = self._executor.run_stored("base", key, "preparing the base model", lambda out, report: self._worker.run(
            stages.make_base, source, out / "model", on_progress=report, reporting=True, outputs=[out]))
        return replace(entry, path=entry.path / "model")

    def data(self, base: Entry, spec: Mapping[str, Any], contents: Mapping[str, str]) -> Entry:
        """Token ids of all splits."""
        key = keys.data(base.key, spec, contents)
        return self._executor.run_stored("data", key, "tokenizing the data", lambda out, report: self._worker.run(
            stages.make_data, base.path, out, spec, on_progress=report, reporting=True, outputs=[out]))

    def adapter(self, base: Entry, data: Entry, params: AdapterParams, seed: int, threads: int | None) -> Entry:
        """A trained adapter."""
        key = keys.adapter(base.key, data.key, params, seed)
        return self._executor.run_stored("train", key, "training", lambda out, report: self._worker.run(
            stages.make_adapter, base.path, data.path / stages.DATA_FILE, params, out, seed, threads,
            error=TrainingError, on_progress=report, reporting=True, kind="train", outputs=[out]))

    def rungs(
        self, base: Entry, data: Entry, jobs: Sequence[RungJob], threads: int | None
    ) -> list[Entry | StageError]:
        """Each adapter trained to its rung, what is missing together and from the latest earlier rung in the store.

        One that cannot be trained has its error in the place of an entry, and costs the others nothing. Earlier rungs
        stay in the store; ``autotune gc`` frees them.
        """
        names = [keys.rung(base.key, data.key, job.params, job.seed, job.step, job.last) for job in jobs]
        named = dict(zip(names, jobs, strict=True))

        def train(folders: Mapping[Key, Path], report: Report) -> list[float | TrainingError]:
            work = [self._adapter_job(base, data, named[key], out) for key, out in folders.items()]
            return self._worker.run(stages.make_adapters, base.path, data.path / stages.DATA_FILE, work, threads,
                                    error=TrainingError, on_progress=report, reporting=True, kind="train",
                                    outputs=list(folders.values()))

        def produce(folders: Mapping[Key, Path], report: Report) -> dict[Key, float | StageError]:
            try:
                return dict(zip(folders, train(folders, report), strict=True))
            except TrainingError as error:
                if len(folders) == 1:
                    return dict.fromkeys(folders, error)
            # Which of them the whole batch failed for, if not for being one, shows when each is alone.
            outcomes: dict[Key, float | StageError] = {}
            for key, out in folders.items():
                shutil.rmtree(out)
                out.mkdir()
                outcomes |= produce({key: out}, report)
            return outcomes

        found = self._executor.run_stored_together({key: "train" if job.last else "rung" for key, job in named.items()},
                                     f"training {len(named)} adapter{'s' * (len(named) != 1)}", produce)
        return [found[key] for key in names]

    def judgement(
        self, base: Entry, data: Entry, trained: Entry, points: Mapping[DeployParams, Entry], rows: int,
        threads: int | None,
    ) -> Entry:
        """How an adapter answers validation rows, at most ``rows``, as each of the points rounds. Full precision is
        judged where one of them has it, or there is none.

        ``points`` are the base's own artifacts; ``pipeline.judgement.read`` gives what the entry holds.
        """
        judged = {shared.label: params for shared, params in roundings(points).items()}
        full = not judged or any(rounding(params) == FULL for params in points)
        key = keys.judgement(trained.key, {name: points[params].key for name, params in judged.items()}, full, rows)
        folders = {params: points[params].path for params in judged.values()}
        return self._executor.run_stored("judge", key, "judging", lambda out, report: self._worker.run(
            stages.make_judgement, base.path, data.path / stages.DATA_FILE, trained.path, folders, full, rows, threads,
            out, error=AssemblyError, kind="train", outputs=[out]))

    def template(self, base: Entry, params: TemplateParams) -> Entry:
        """ModelBuilder's graph of the base, for all precisions."""
        key = keys.template(base.key, params)
        return self._executor.run_stored("template", key, "exporting the base model", lambda out, report:
            self._worker.run(stages.make_template, base.path, out, params, error=AssemblyError, outputs=[out]))

    def point(
        self, base: Entry, template: TemplateParams, params: DeployParams, provider: str, context: int
    ) -> Entry:
        """The base's own artifact at a deploy point."""
        key = keys.point(keys.template(base.key, template), params, provider, context)
        parents = [] if self.store.get(key) else [self.template(base, template)]

        def produce(out: Path, report: Report) -> None:
            self._worker.run(stages.make_point, _the(parents).path, base.path, out, params, provider, context,
                             error=AssemblyError, outputs=[out])

        return self._executor.run_stored("point", key, f"building {params.label}", produce, parents)

    def tokenizer(self, base: Entry, template: TemplateParams, data: TokenizedData) -> Entry:
        """The check of an artifact's tokenizer on the validation rows, and what mends it."""
        key = keys.tokenizer(keys.template(base.key, template), data.valid, data.chat)
        made = [] if self.store.get(key) else [self.template(base, template)]

        def produce(out: Path, report: Report) -> None:
            self._worker.run(stages.check_tokenizer, _the(made).path, base.path.name, data.valid, data.chat, out,
                             error=AssemblyError, outputs=[out])

        return self._executor.run_stored("tokenizer", key, "checking the artifact's tokenizer", produce)

    def artifact(self, key: Key, base: Entry, point: Entry, tokenizer: Entry, adapter: Entry, eos_id: int,
                 label: str) -> Entry:
        """The artifact of an adapter at the point; ``key`` names it."""
        return self._executor.run_stored("assemble", key, f"assembling {label}", lambda out, report: self._worker.run(
            stages.make_artifact, point.path, base.path, adapter.path, tokenizer.path, eos_id, out,
            error=AssemblyError, on_progress=report, reporting=True, outputs=[out]), [point])

    def export_check(
        self, base: Entry, point: Key, prompts: Sequence[tuple[int, ...]], target: Target,
        artifact: Callable[[], tuple[Path, int]],
    ) -> Entry:
        """Logits of the base's artifact against PyTorch's; raises ExportError where they disagree.

        ``artifact`` gives its path and shortest generator; it is called only for a new check.
        """
        key = keys.export_check(point, prompts, target.provider)
        found = [] if self.store.get(key) else [artifact()]

        def produce(out: Path, report: Report) -> None:
            path, shortest = _the(found)
            self._worker.run(stages.check_export, base.path, path, prompts, target.provider, target.threads,
                             shortest, out, error=ExportError, outputs=[out])

        return self._executor.run_stored("verify", key, "comparing logits with PyTorch", produce)

    def measurement(
        self, stage: str, key: Key, request: Callable[[], tuple[Mapping[str, Any], int]], title: str, *, timed: bool,
        device: Device | None = None,
    ) -> Entry:
        """One probe run. ``request`` gives what to ask and the artifact's bytes; it is called only for a new one.

        ``device`` is where, the target unless it is given. ``timed``: latency is measured, and everything of ours there
        keeps still meanwhile.
        """
        made = [] if self.store.get(key) else [request()]
        there = device or self.device

        def produce(out: Path, report: Report) -> None:
            asked, size = _the(made)
            answers.store(out, there.measure(asked, workdir=self._folder.scratch, report=report), size)

        return self._executor.run_stored(stage, key, title, produce, timed=timed, measures=there)

    def fresh(
        self, stage: str, title: str, request: Mapping[str, Any], *, timed: bool, device: Device | None = None
    ) -> ProbeResult:
        """One probe run that is neither looked up in the store nor kept there: certifying always measures anew."""
        there = device or self.device
        return self._executor.run_unstored(
            stage, title, lambda report: there.measure(request, workdir=self._folder.scratch, report=report),
            timed=timed, measures=there)

    def copy(self, stage: str, key: Key, source: Entry) -> None:
        """Store a measurement under another name too."""
        self._executor.copy(stage, key, lambda out: answers.copy(source.path, out))

    def call(self, title: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A stage that is not stored: something quick, or something whose output is a value."""
        return self._executor.run_quick(
            title, lambda report: self._worker.run(function, *args, on_progress=report, **kwargs))

    def _adapter_job(self, base: Entry, data: Entry, job: RungJob, out: Path) -> AdapterJob:
        """From the latest earlier rung that is in the store, to this one."""
        earlier = (self.store.get(keys.rung(base.key, data.key, job.params, job.seed, step, False))
                   for step in job.earlier)
        start = next((entry.path for entry in earlier if entry), None)
        return AdapterJob(job.params, out, job.seed, None if job.last else job.step, start)


def _the(made: Sequence[T]) -> T:
    """What a stage needs of another: there, unless its own entry was freed after it was looked for."""
    if not made:
        raise StageError("its stored entry was freed meanwhile; run again to make it anew")
    return made[0]
