"""What the processes of a recording do: train to the rungs, judge, assemble and ask."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from autotune.errors import AutotuneError, TrainingError
from autotune.pipeline import stages
from autotune.pipeline.batching import mean_loss
from autotune.pipeline.frozen_base import load_frozen
from autotune.pipeline.judge import judge
from autotune.pipeline.rungs import rung_steps
from autotune.pipeline.template_params import template_params
from autotune.pipeline.train import AdapterJob, train_adapters
from autotune.questions import Target, probe_request
from autotune.targets.local import run_probe
from benchmarks.replay.drawing import FP16_ASKED, ROUNDED_AT
from benchmarks.replay.workshop import Piece, Workshop, fresh_folder, read_json, work_off, write_json
from objectives.accuracy import build_trie
from search_spaces.deploy import DeployParams

PROVIDER = "cpu"
#: The file that says that no more adapters are to come.
TRAINED = "trained"


def train_all(shop: Workshop, width: int, until: float, chosen: Sequence[int], rungs: int | None) -> None:
    """Train the chosen adapters, in packs of about equally many steps, the shortest first, rung by rung, up to
    ``rungs`` of them where not None."""
    examples = len(shop.data.train)
    steps = {n: shop.plan.adapters[n].training_steps(examples) for n in chosen}
    order = sorted(chosen, key=lambda n: (steps[n], n))
    groups = [[n for n in order if steps[n] == count] for count in sorted(set(steps.values()))]
    for group in groups:
        count = -(-len(group) // width)
        for pack in (group[i::count] for i in range(count)):
            for rung in range(len(shop.plan.rungs[:rungs])):
                if time.time() < until:
                    _train_rung(shop, pack, rung, width)


def _train_rung(shop: Workshop, pack: Sequence[int], rung: int, width: int) -> None:
    wanted = [n for n in pack if not shop.training(n, rung).exists() and not _failed(shop, n, rung)]
    jobs, ends = [], {}
    for n in wanted:
        params = shop.plan.adapters[n]
        ends[n] = rung_steps(params, len(shop.data.train), shop.plan.rungs)[rung]
        jobs.append(AdapterJob(params, fresh_folder(shop.rung(n, rung)), 0, ends[n],
                               shop.rung(n, rung - 1) if rung else None))
    if not jobs:
        return
    began = time.time()
    results = train_adapters(shop.base, shop.data, jobs, width=width)
    wall = time.time() - began
    for n, job, result in zip(wanted, jobs, results, strict=True):
        if isinstance(result, TrainingError):
            shutil.rmtree(job.out)
            write_json(shop.training(n, rung), {"failed": str(result)})
            continue
        shutil.rmtree(shop.rung(n, rung), ignore_errors=True)  # of a process that died before it had noted it
        job.out.replace(shop.rung(n, rung))
        write_json(shop.training(n, rung), {
            "step": result.steps, "tokens": result.tokens, "seconds": result.seconds, "losses": result.losses[-5:],
            "valid_loss_64": result.valid_loss if math.isfinite(result.valid_loss) else None,
            "pack": len(jobs), "pack_seconds": wall,
        })
        if rung:
            for state in shop.rung(n, rung - 1).glob("training_state.*"):
                state.unlink()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    tokens = sum(r.tokens for r in results if not isinstance(r, TrainingError))
    say(f"rung {rung + 1}: {len(jobs)} adapters to step {min(ends.values())}–{max(ends.values())} in {wall:.1f} s, "
        f"{tokens} tokens in all so far")


def _failed(shop: Workshop, adapter: int, rung: int) -> bool:
    return any("failed" in read_json(f) for r in range(rung) if (f := shop.training(adapter, r)).exists())


class Worker:
    """Prepares, judges and asks, whatever is there to be done, on ``threads`` threads.

    One that ``judges`` does so before it asks; the others never do, for each judge holds the model on the GPU.
    """

    def __init__(
        self, shop: Workshop, threads: int, pieces: Sequence[int], chosen: Sequence[int], judges: bool
    ) -> None:
        self.shop, self.threads, self.pieces, self.chosen, self.judges = shop, threads, pieces, chosen, judges
        torch.set_num_threads(threads)

    def run(self, until: float) -> None:
        trained = self.shop.root / TRAINED
        work_off(self.shop, self.offered, until,
                 lambda: not trained.exists() or any(not piece.done.exists() for piece in self._preparing()))

    def offered(self) -> Iterator[Piece]:
        prepared = True
        for piece in self._preparing():
            if not piece.done.exists():
                prepared = False
                yield piece
        if prepared:
            wanted = itertools.chain(self._judging() if self.judges else (), self._asking())
            yield from (piece for piece in wanted if not piece.done.exists())

    def _preparing(self) -> Iterator[Piece]:
        shop = self.shop
        yield Piece("template", "template", shop.template, self._template)
        if shop.template.exists():
            for point in shop.plan.points:
                folder = shop.point(point.label)
                yield Piece("point", f"point-{point.label}", folder, partial(self._point, point))

    def _judging(self) -> Iterator[Piece]:
        for rung in reversed(range(len(self.shop.plan.rungs))):
            for n in self.chosen:
                if (self.shop.rung(n, rung)).exists():
                    yield Piece("judge", f"judge-{n}-{rung}", self.shop.judged(n, rung), partial(self._judge, n, rung))

    def _asking(self) -> Iterator[Piece]:
        last = len(self.shop.plan.rungs) - 1
        trained = [n for n in self.chosen if self.shop.rung(n, last).exists()]
        for piece in self.pieces:
            for n in trained:
                for point in self.shop.plan.points:
                    if point.precision == "fp16" and n >= FP16_ASKED:
                        continue
                    yield Piece("answer", f"answer-{n}-{point.label}-{piece}",
                                self.shop.answers(n, point.label, piece), partial(self._ask, n, point, piece))

    @cached_property
    def _model(self) -> Any:
        return load_frozen(self.shop.base, "fp32")

    def _template(self) -> None:
        wanted = template_params(self.shop.plan.points[0], PROVIDER, self.shop.plan.context)
        out = fresh_folder(self.shop.template)
        stages.make_template(self.shop.base, out, wanted)
        out.replace(self.shop.template)

    def _point(self, point: DeployParams) -> None:
        out = fresh_folder(self.shop.point(point.label))
        began = time.time()
        stages.make_point(self.shop.template, self.shop.base, out, point, PROVIDER, self.shop.plan.context)
        out.replace(self.shop.point(point.label))
        say(f"{point.label} made in {time.time() - began:.1f} s")

    def _judge(self, adapter: int, rung: int) -> None:
        shop, began = self.shop, time.time()
        fraction, valid = shop.plan.rungs[rung], shop.data.valid
        rows = [*valid, *shop.data.test] if fraction == 1 else list(valid)
        points = {p: shop.point(p.label) for p in shop.plan.points} if fraction in ROUNDED_AT else {}
        trie = build_trie(shop.data.label_ids, shop.data.eos_id)
        found = judge(self._model, shop.base, shop.rung(adapter, rung), rows, trie, points)
        write_json(shop.judged(adapter, rung), {
            "seconds": time.time() - began,
            "points": {rounded.label: {
                "right": bits(judged.right[: len(valid)]), "test": bits(judged.right[len(valid) :]),
                "loss": mean_loss(judged.losses[: len(valid)]),
            } for rounded, judged in found.items()},
        })

    def _ask(self, adapter: int, point: DeployParams, piece: int) -> None:
        shop, label = self.shop, point.label
        folder = fresh_folder(shop.root / "artifacts" / f"{adapter}-{label}")
        try:
            write_json(shop.answers(adapter, label, piece), self._asked(adapter, point, piece, folder))
        except AutotuneError as error:
            say(f"adapter {adapter} at {label}: {error}")
            write_json(shop.answers(adapter, label, piece), {"failed": str(error)})
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _asked(self, adapter: int, point: DeployParams, piece: int, folder: Path) -> dict[str, Any]:
        shop = self.shop
        no_mend = folder / "tokenizer"
        no_mend.mkdir()
        began = time.time()
        stages.make_artifact(shop.point(point.label), shop.base, shop.rung(adapter, len(shop.plan.rungs) - 1),
                             no_mend, shop.data.eos_id, folder)
        assembled = time.time()
        info = read_json(folder / stages.INFO_FILE)
        rows = shop.rows(piece)
        task = {"kind": "choice", "prompts": [list(row.prompt) for row in rows],
                "labels": [list(ids) for ids in shop.data.label_ids], "eos_id": shop.data.eos_id}
        request = probe_request(folder / stages.ARTIFACT_FOLDER, Target(PROVIDER, {}, self.threads),
                                info["min_generator_length"], [task])
        result = run_probe(request, workdir=folder)
        names = shop.data.labels
        return {
            "size_bytes": info["size_bytes"], "assemble_s": assembled - began, "ask_s": time.time() - assembled,
            "rows": len(rows), "tokens": sum(len(row.prompt) for row in rows),
            "right": bits([names[label] == row.answer_text for label, row in zip(result.predictions, rows,
                                                                                strict=True)]),
        }


def bits(flags: Sequence[bool]) -> str:
    """Flags as ones and zeros, in order."""
    return "".join("1" if flag else "0" for flag in flags)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} [{os.getpid()}] {text}", flush=True)


def settings() -> dict[str, Any]:
    """The machine and the versions that made a recording."""
    from objectives.machine import machine, versions
    from objectives.session import genai_version

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"machine": machine(), "versions": {**versions(genai_version()), "torch": torch.__version__}, "gpu": gpu}
