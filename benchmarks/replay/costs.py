"""What searching costs on this machine: measured piece by piece, for the table's seconds.

Each piece is timed twice over, while no study on this machine works or measures: by the clock, and by the processor
seconds of the processes that did it. On a machine that did nothing else meanwhile the clock is what counts; where other
processes took more than a tenth of its cores, the processor seconds over the threads stand for it, and the piece is
measured again when ``measure`` is called again.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from autotune import answers
from autotune.machine_lock import MachineLock
from autotune.pipeline import stages
from autotune.pipeline.frozen_base import load_frozen
from autotune.pipeline.judge import judge
from autotune.pipeline.recipe import spread
from autotune.pipeline.template_params import template_params
from autotune.pipeline.tokens import TokenizedData
from autotune.pipeline.train import AdapterJob, train_adapters
from autotune.questions import Questions, Target, Workload, latency_task, probe_request, screening_seconds
from autotune.targets.local import run_probe
from benchmarks.adapters import random_adapter
from benchmarks.replay.joining import QUIET
from benchmarks.replay.workshop import Workshop, read_json, write_json
from objectives.accuracy import build_trie
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

PROVIDER, CONFIDENCE = "cpu", 0.95
#: Rows that an artifact is asked for its seconds a row, and rows that are judged.
ASKED, JUDGED = 94, 64
STEPS = 4
#: Seconds after which others on this machine get their turn.
_TURN_S = 100.0
CONFIGURATIONS = (
    AdapterParams(16, 16, 1e-4, "all-linear", batch_size=8), AdapterParams(128, 128, 1e-4, "all-linear", batch_size=8),
    AdapterParams(16, 16, 1e-4, "attention", batch_size=8), AdapterParams(128, 128, 1e-4, "attention", batch_size=8),
    AdapterParams(16, 16, 1e-4, "mlp", batch_size=8), AdapterParams(128, 128, 1e-4, "mlp", batch_size=8),
    AdapterParams(16, 16, 1e-4, "all-linear", batch_size=16),
    AdapterParams(16, 16, 1e-4, "all-linear", batch_size=8, dropout=0.05),
)
_WORKLOAD = Workload(64, 8, False, 20)
_QUESTIONS = Questions(8, (), ("latency_ms.p50", "latency_ms.p95"), CONFIDENCE, Path(), 0.0)


class Watch:
    """Seconds since it began, by the clock and of our processors, and the share of the cores that others took."""

    def __init__(self) -> None:
        self._wall, self._own, self._all = time.perf_counter(), _own_cpu(), _all_cpu()

    def read(self) -> dict[str, float]:
        wall, own = time.perf_counter() - self._wall, _own_cpu() - self._own
        others = max(0.0, _all_cpu() - self._all - own) / wall / (os.cpu_count() or 1)
        return {"wall_s": wall, "cpu_s": own, "others": others}


def _own_cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _all_cpu() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


class Costs:
    """Measures on ``threads`` threads, in ``folder``; what was measured undisturbed stays as it is."""

    def __init__(self, shop: Workshop, folder: Path, threads: int) -> None:
        self.shop, self.folder, self.threads = shop, folder, threads
        torch.set_num_threads(threads)
        self._adapter = folder / "adapter"
        if not self._adapter.exists():
            random_adapter(shop.base, self._adapter)

    def pieces(self) -> list[tuple[str, Callable[[], dict[str, Any]]]]:
        points = self.shop.plan.points
        return [
            ("template", self._template),
            *((f"point-{p.label}", partial(self._point, p)) for p in points),
            *((f"step-{i}", partial(self._steps, params)) for i, params in enumerate(CONFIGURATIONS)),
            ("judge-fp32", partial(self._judge, None)),
            *((f"judge-{p.label}", partial(self._judge, p)) for p in points),
            *((f"assemble-{p.label}", partial(self._assemble, p)) for p in points),
            *((f"ask-{p.label}", partial(self._ask, p)) for p in points),
            *((f"probe-{p.label}", partial(self._probe, p)) for p in points),
        ]

    def measure(self, wanted: Sequence[str], until: float) -> None:
        """The pieces whose names begin with one of ``wanted``, until ``until`` (epoch seconds)."""
        waiting = [(name, do) for name, do in self.pieces() if name.startswith(tuple(wanted)) and self._due(name)]
        while waiting and time.time() < until:
            with MachineLock(on_wait=print).measuring():
                let_go = min(until, time.time() + _TURN_S)
                while waiting and time.time() < let_go:
                    self._note(*waiting.pop(0))

    def _due(self, name: str) -> bool:
        file = self.folder / f"{name}.json"
        return not file.exists() or read_json(file)["others"] > QUIET

    def _note(self, name: str, do: Callable[[], dict[str, Any]]) -> None:
        file, found = self.folder / f"{name}.json", do()
        if not file.exists() or found["others"] < read_json(file)["others"]:
            write_json(file, found)
        print(name, {key: round(value, 2) for key, value in found.items() if isinstance(value, float)}, flush=True)

    def _template(self) -> dict[str, Any]:
        out = self._empty("template")
        watch = Watch()
        wanted = template_params(self.shop.plan.points[0], PROVIDER, self.shop.plan.context)
        stages.make_template(self.shop.base, out, wanted)
        return watch.read()

    def _point(self, point: DeployParams) -> dict[str, Any]:
        out = self._empty(f"points/{point.label}")
        watch = Watch()
        stages.make_point(self.folder / "template", self.shop.base, out, point, PROVIDER, self.shop.plan.context)
        return watch.read()

    def _steps(self, params: AdapterParams) -> dict[str, Any]:
        """One step's seconds: the median of some, after one to warm up, on rows of the study."""
        data = self.shop.data
        rows = spread(data.train, (STEPS + 1) * params.batch_size)
        few = TokenizedData(data.task, data.chat, data.eos_id, tuple(rows), (), (), data.labels, data.label_ids)
        ends: list[tuple[float, float]] = []

        def note(done: float, total: float, text: str = "") -> None:
            ends.append((time.perf_counter(), _own_cpu()))

        watch = Watch()
        job = AdapterJob(replace(params, steps=STEPS + 1), self._empty("trained"), 0)
        train_adapters(self.shop.base, few, [job], report=note, threads=self.threads)
        others = watch.read()["others"]
        (first, first_cpu), (last, last_cpu) = ends[0], ends[-1]
        tokens = params.batch_size * sum(len(row.prompt) + len(row.answer) for row in rows) / len(rows)
        return {"wall_s": (last - first) / STEPS, "cpu_s": (last_cpu - first_cpu) / STEPS, "others": others,
                "tokens": tokens, "rank": params.rank, "targets": params.targets, "dropout": params.dropout,
                "batch_size": params.batch_size}

    def _judge(self, point: DeployParams | None) -> dict[str, Any]:
        """Full precision alone, or that and one rounding."""
        data = self.shop.data
        model = load_frozen(self.shop.base, "fp32")
        watch = Watch()
        folders = {point: self.folder / "points" / point.label} if point else {}
        judge(model, self.shop.base, self._adapter, spread(data.valid, JUDGED),
              build_trie(data.label_ids, data.eos_id), folders)
        return {**watch.read(), "rows": min(JUDGED, len(data.valid))}

    def _assemble(self, point: DeployParams) -> dict[str, Any]:
        out = self._empty(f"artifacts/{point.label}")
        (self.folder / "no-mend").mkdir(exist_ok=True)
        watch = Watch()
        stages.make_artifact(self.folder / "points" / point.label, self.shop.base, self._adapter,
                             self.folder / "no-mend", self.shop.data.eos_id, out)
        return watch.read()

    def _ask(self, point: DeployParams) -> dict[str, Any]:
        """Some validation rows; ``load_s`` of it is opening the artifact."""
        data = self.shop.data
        rows = spread(data.valid, ASKED)
        task = {"kind": "choice", "prompts": [list(row.prompt) for row in rows],
                "labels": [list(ids) for ids in data.label_ids], "eos_id": data.eos_id}
        watch = Watch()
        result = run_probe(self._request(point, f"artifacts/{point.label}", task), workdir=self.folder)
        return {**watch.read(), "load_s": result.load_ms / 1e3, "rows": len(rows)}

    def _probe(self, point: DeployParams) -> dict[str, Any]:
        """Latency as a study screens it, on the base's own artifact; and its size."""
        info = read_json(self.folder / "points" / point.label / stages.INFO_FILE)
        task = latency_task(self.shop.data, _WORKLOAD, _QUESTIONS, max_seconds=screening_seconds(info["size_bytes"]))
        watch = Watch()
        result = run_probe(self._request(point, f"points/{point.label}", task), workdir=self.folder)
        found = answers.system_measurements(result, _QUESTIONS.asked, CONFIDENCE)
        p50, p95 = found["latency_ms.p50"], found["latency_ms.p95"]
        return {**watch.read(), "size_mb": info["size_bytes"] / 1e6, "latency_ms": {
            "p50": p50.value, "p50_low": p50.low, "p50_high": p50.high, "p95": p95.value, "p95_low": p95.low,
            "p95_high": p95.high, "n": p50.n,
        }}

    def _request(self, point: DeployParams, folder: str, task: dict[str, Any]) -> dict[str, Any]:
        info = read_json(self.folder / folder / stages.INFO_FILE)
        return probe_request(self.folder / folder / stages.ARTIFACT_FOLDER, Target(PROVIDER, {}, self.threads),
                             info["min_generator_length"], [task])

    def _empty(self, name: str) -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder
