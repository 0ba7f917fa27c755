"""Runs stages through the store: key, cache, worker, progress, events, and the account of what it cost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from autotune import answers
from autotune.errors import AssemblyError, ExportError, ProbeError, StageError, TrainingError
from autotune.pipeline import stages
from autotune.pipeline.base_model import ModelSource
from autotune.pipeline.progress import Report
from autotune.questions import Target
from autotune.report.terminal import Terminal
from autotune.run_folder import RunFolder
from autotune.store import Entry, Key, Store, make_key
from autotune.targets.local import run_probe
from autotune.workers import Worker
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

T = TypeVar("T")
_BUILD_LIBRARIES = ("onnx", "onnx-ir", "onnxruntime", "onnxruntime-genai", "peft", "torch", "transformers")
_TRAIN_LIBRARIES = ("bitsandbytes", "peft", "torch", "transformers")


class StageRunner:
    """Every stage of a study as one method each. What a stage raises passes through."""

    def __init__(self, store: Store, worker: Worker, folder: RunFolder, terminal: Terminal) -> None:
        self.store = store
        self._worker = worker
        self._folder = folder
        self._terminal = terminal
        ends = (e for e in folder.events() if e["event"] == "stage_end" and not e["cached"])
        self._took = {e["stage"]: e["seconds"] for e in ends}

    def base(self, source: ModelSource, fingerprint: Mapping[str, str]) -> Entry:
        """The base model's folder. A folder, and a hub snapshot, are used where they lie."""
        inputs = {"source": dict(fingerprint)}
        if source.kind in ("folder", "hub"):
            path = self.call("reading the base model", stages.make_base, source, self._folder.scratch, reporting=True)
            if source.kind == "hub":  # the snapshot's folder has the name of the commit that was fetched
                inputs["source"]["revision"] = path.name
            return Entry(make_key("base", 1, inputs), path, 0.0, cached=True)
        key = make_key("base", 1, inputs, ("transformers", "gguf"))
        entry = self._stored("base", key, inputs, "preparing the base model", lambda out, report: self._worker.run(
            stages.make_base, source, out / "model", on_progress=report, reporting=True))
        return Entry(key, entry.path / "model", entry.seconds, entry.cached)

    def data(self, base: Entry, spec: Mapping[str, Any], contents: Mapping[str, str]) -> Entry:
        """Token ids of all splits."""
        plain = {k: (list(v) if isinstance(v, tuple) else v) for k, v in spec.items() if k != "base_dir"}
        inputs = {"base": str(base.key), "spec": plain, "contents": dict(contents)}
        key = make_key("data", 1, inputs, ("transformers", "tokenizers"))
        return self._stored("data", key, inputs, "tokenizing the data", lambda out, report: self._worker.run(
            stages.make_data, base.path, out, spec, on_progress=report, reporting=True))

    def adapter(self, base: Entry, data: Entry, params: AdapterParams, seed: int, threads: int | None) -> Entry:
        """A trained adapter."""
        inputs = {"base": str(base.key), "data": str(data.key), "params": params.flat(), "seed": seed}
        key = make_key("adapter", 1, inputs, _TRAIN_LIBRARIES)
        return self._stored("train", key, inputs, "training", lambda out, report: self._worker.run(
            stages.make_adapter, base.path, data.path / stages.DATA_FILE, params, out, seed, threads,
            error=TrainingError, on_progress=report, reporting=True))

    def artifact_key(
        self, base: Entry, data: Entry, adapter: Entry | None, point: DeployParams, provider: str, context: int
    ) -> tuple[Key, dict[str, Any]]:
        # The data is an input because the artifact's tokenizer is checked, and mended, on its rows.
        inputs = {
            "base": str(base.key), "data": str(data.key), "adapter": str(adapter.key) if adapter else None,
            "deploy": point.flat(), "provider": provider, "context_length": context,
        }
        return make_key("artifact", 1, inputs, _BUILD_LIBRARIES), inputs

    def artifact(
        self, base: Entry, data: Entry, adapter: Entry | None, point: DeployParams, provider: str, context: int
    ) -> Entry:
        """The artifact of an adapter (None: of the base itself) at a deploy point."""
        key, inputs = self.artifact_key(base, data, adapter, point, provider, context)

        def produce(out: Path, report: Report) -> None:
            model_dir = self._merged(base, adapter)
            self._worker.run(stages.make_artifact, model_dir, data.path / stages.DATA_FILE, point, provider,
                             context, out, error=AssemblyError)

        return self._stored("assemble", key, inputs, f"building {point.label}", produce)

    def export_check(
        self, base: Entry, artifact: Key, prompts: list[tuple[int, ...]], target: Target,
        linked: Callable[[], tuple[Path, int]],
    ) -> Entry:
        """Logits of the base's artifact against PyTorch's; raises ExportError where they disagree.

        ``linked`` gives the artifact's path and shortest generator; it is called only for a new check.
        """
        inputs = {"artifact": str(artifact), "prompts": prompts, "target": target.provider}
        key = make_key("verify", 1, inputs)
        found = None if self.store.get(key) else linked()

        def produce(out: Path, report: Report) -> None:
            path, shortest = found or linked()
            self._worker.run(stages.check_export, base.path, path, prompts, target.provider, target.threads,
                             shortest, out, error=ExportError)

        return self._stored("verify", key, inputs, "comparing logits with PyTorch", produce)

    def measurement(
        self, key: Key, inputs: Mapping[str, Any], request: Mapping[str, Any] | None, size_bytes: int, title: str
    ) -> Entry:
        """One probe run on an artifact of ``size_bytes``; ``request`` may be None for a stored one."""

        def produce(out: Path, report: Report) -> None:
            if request is None:
                raise ProbeError("its stored measurement was removed meanwhile; run again to measure it anew")
            result = run_probe(request, workdir=self._folder.scratch, report=report)
            answers.store(out, result, size_bytes)

        return self._stored("probe", key, inputs, title, produce)

    def call(self, title: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A stage that is not stored: something quick, or something whose output is a value."""
        with self._terminal.stage(title) as report:
            return self._worker.run(function, *args, on_progress=report, **kwargs)

    def clear_merged(self) -> None:
        shutil.rmtree(self._folder.scratch / "merged", ignore_errors=True)

    def _merged(self, base: Entry, adapter: Entry | None) -> Path:
        if adapter is None:
            return base.path
        out = self._folder.scratch / "merged" / adapter.key.digest
        if not out.exists():
            self.clear_merged()  # a merged model is as large as the base: one at a time
            out.parent.mkdir(parents=True, exist_ok=True)
            beside = out.with_name(out.name + ".part")
            self._worker.run(stages.make_merged, base.path, adapter.path, beside, error=AssemblyError)
            beside.rename(out)
        return out

    def _stored(
        self, stage: str, key: Key, inputs: Mapping[str, Any], title: str, produce: Callable[[Path, Report], Any]
    ) -> Entry:
        self._folder.event(event="stage_start", stage=stage, key=str(key))
        start = time.perf_counter()
        try:
            with self._terminal.stage(title, self._took.get(stage)) as report:
                entry = self.store.make(key, inputs, lambda out: produce(out, report) and None)
        except OSError as error:
            self._folder.event(event="stage_failed", stage=stage, key=str(key), reason=str(error))
            failed = StageError(f"{error.strerror or error}: {error.filename or self.store.root}")
            failed.stage = stage
            raise failed from error
        except BaseException as error:
            reason = error.reason if isinstance(error, StageError) else type(error).__name__
            self._folder.event(event="stage_failed", stage=stage, key=str(key), reason=reason)
            raise
        seconds = time.perf_counter() - start
        if not entry.cached:
            self._took[stage] = seconds
        self._folder.event(event="stage_end", stage=stage, key=str(key), seconds=round(seconds, 3),
                           cached=entry.cached)
        return entry

