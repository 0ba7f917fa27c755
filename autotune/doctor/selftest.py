"""The whole way of a study in seconds: train, export, assemble, run and compare, on a tiny random model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from autotune.doctor.tiny_model import LABELS, make_model, make_rows
from autotune.errors import AutotuneError, ExportError
from autotune.pipeline import stages
from autotune.pipeline.template_params import template_params
from autotune.pipeline.tokens import TokenizedData
from autotune.questions import Target, probe_request
from autotune.targets.local import run_probe
from autotune.workers import Worker
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

_ADAPTER = AdapterParams(rank=4, alpha=8, learning_rate=5e-3, steps=4, batch_size=6)
_POINTS = (DeployParams("fp32"), DeployParams("int4"))
_CONTEXT = 256
_SEED = 0
_PROBE_S = 120.0


@dataclass(frozen=True)
class Step:
    """One step of the way. ``seconds`` are of wall time; ``error`` is one sentence where it failed."""

    name: str
    seconds: float
    found: str
    error: str | None = None


class SelfTest:
    """``folder`` is scratch space; stages run in ``worker``, as a study's do, on ``threads``."""

    def __init__(self, worker: Worker, folder: Path, threads: int = 1) -> None:
        self._worker, self._folder = worker, folder
        self._target = Target("cpu", {}, threads)
        self._made: dict[str, Path] = {}

    def steps(self) -> Iterator[Step]:
        """Each step once it is done; the first that fails is the last."""
        ways: list[tuple[str, Callable[[], str]]] = [
            ("tiny model", self._base), ("rows to token ids", self._data), ("LoRA training", self._train),
            ("export (ModelBuilder)", self._template),
        ]
        for point in _POINTS:
            ways += [(f"artifact at {point.precision}", partial(self._artifact, point)),
                     (f"answers at {point.precision}", partial(self._answers, point))]
        ways.append(("logits against PyTorch", self._compare))
        for name, way in ways:
            start, error = time.perf_counter(), None
            try:
                found = way()
            except (AutotuneError, OSError) as failed:
                found, error = "", " ".join(str(failed).split())
            yield Step(name, time.perf_counter() - start, found, error)
            if error:
                return

    def _new(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        self._made[name] = folder
        return folder

    def _base(self) -> str:
        self._worker.run(make_model, self._new("model"))
        size = sum(file.stat().st_size for file in self._made["model"].iterdir())
        return f"{size / 1e6:.1f} MB"

    def _data(self) -> str:
        spec = make_rows(self._folder)
        self._worker.run(stages.make_data, self._made["model"], self._new("data"), spec)
        found = self._tokens()
        return f"{len(found.train)} + {len(found.valid)} + {len(found.test)} rows"

    def _tokens(self) -> TokenizedData:
        return TokenizedData.load(self._made["data"] / stages.DATA_FILE)

    def _train(self) -> str:
        data = self._made["data"] / stages.DATA_FILE
        self._worker.run(stages.make_adapter, self._made["model"], data, _ADAPTER, self._new("adapter"), _SEED,
                         self._target.threads)
        record = json.loads((self._made["adapter"] / stages.TRAINING_FILE).read_text(encoding="utf-8"))
        return f"{record['steps']} steps, validation loss {record['valid_loss']:.2f}"

    def _template(self) -> str:
        params = template_params(_POINTS[0], self._target.provider, _CONTEXT)
        self._worker.run(stages.make_template, self._made["model"], self._new("template"), params)
        self._worker.run(stages.check_tokenizer, self._made["template"], "the tiny model", self._tokens().valid, False,
                         self._new("tokenizer"))
        return "its tokenizer gives training's ids"

    def _artifact(self, point: DeployParams) -> str:
        model, made = self._made["model"], self._new(f"{point.precision}-point")
        self._worker.run(stages.make_point, self._made["template"], model, made, point, self._target.provider, _CONTEXT)
        out = self._new(point.precision)
        self._worker.run(stages.make_artifact, made, model, self._made["adapter"], self._made["tokenizer"],
                         self._tokens().eos_id, out)
        return f"{self._info(point)['size_bytes'] / 1e6:.2f} MB"

    def _info(self, point: DeployParams) -> dict[str, Any]:
        text = (self._made[point.precision] / stages.INFO_FILE).read_text(encoding="utf-8")
        loaded: dict[str, Any] = json.loads(text)
        return loaded

    def _answers(self, point: DeployParams) -> str:
        data = self._tokens()
        task = {"kind": "choice", "prompts": [list(row.prompt) for row in data.test],
                "labels": [list(ids) for ids in data.label_ids], "eos_id": data.eos_id}
        request = probe_request(self._made[point.precision] / stages.ARTIFACT_FOLDER, self._target,
                                self._info(point)["min_generator_length"], [task])
        found = run_probe(request, workdir=self._folder, timeout_s=_PROBE_S)
        right = sum(LABELS[guess] == row.answer_text for guess, row in zip(found.predictions, data.test, strict=True))
        return f"{len(found.predictions)} answers, {right} right"

    def _compare(self) -> str:
        point, prompts = _POINTS[0], [row.prompt for row in self._tokens().valid]
        found = self._worker.run(
            stages.compare_logits, self._made["model"], self._made["adapter"],
            self._made[point.precision] / stages.ARTIFACT_FOLDER, prompts, self._target.provider, self._target.threads,
            self._info(point)["min_generator_length"])
        figures = f"largest difference {found['relative']:.1e} of the largest logit, {found['n']} prompts"
        if found["relative"] > found["accepted"] or found["top1_agree"] < found["n"]:
            raise ExportError(f"the artifact does not compute what PyTorch computes: {figures}, the same top token "
                              f"for {found['top1_agree']}; accepted: {found['accepted']:g}, and all of them")
        return figures
