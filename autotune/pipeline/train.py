"""Train LoRA adapters on a frozen base model: together in one pass, or one through PEFT where that cannot be."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from autotune.errors import TrainingError
from autotune.pipeline.batching import evaluate_loss
from autotune.pipeline.frozen_base import quiet, resolve_device, supported_base_precisions
from autotune.pipeline.packed.engine import train_packed
from autotune.pipeline.packed.job import AdapterJob
from autotune.pipeline.peft_training import train_through_peft
from autotune.pipeline.progress import Report, silent
from autotune.pipeline.recipe import TrainResult, is_out_of_memory, out_of_memory
from autotune.pipeline.resident import frozen_base
from autotune.pipeline.rungs import pausable
from autotune.pipeline.tokens import TokenizedData
from search_spaces.adapter import AdapterParams

__all__ = [
    "AdapterJob", "TrainResult", "evaluate_loss", "supported_base_precisions", "train_adapter", "train_adapters",
]


def train_adapter(
    base: Path,
    data: TokenizedData,
    params: AdapterParams,
    out: Path,
    *,
    seed: int,
    report: Report = silent,
    threads: int | None = None,
    device: str = "auto",
) -> TrainResult:
    """Train a LoRA adapter and write it to the folder ``out``.

    AdamW without weight decay, gradients clipped to norm 1, 6 % linear warm-up and linear decay to
    zero; loss on answer tokens alone. Equal arguments give equal adapters on one machine with one
    thread count. The caller's random state and thread count are as before afterwards.

    Raises BaseModelError (unsupported model) and TrainingError: no training rows, a precision this
    machine lacks, out of memory, a loss that is not finite or diverges.
    """
    job = AdapterJob(params, out, seed)
    (result,) = train_adapters(base, data, [job], report=report, threads=threads, device=device)
    if isinstance(result, TrainingError):
        raise result
    return result


def train_adapters(
    base: Path,
    data: TokenizedData,
    jobs: Sequence[AdapterJob],
    *,
    report: Report = silent,
    threads: int | None = None,
    device: str = "auto",
    width: int | None = None,
) -> list[TrainResult | TrainingError]:
    """Train adapters as ``train_adapter`` does, as many at once as is best (or ``width``), in the order of ``jobs``.

    A job that fails has its TrainingError in the place of a result. On a GPU, adapters with dropout draw
    other random numbers than PEFT would; which ones depends on their seed alone. Whether two adapters
    trained together can change a result's last digits.

    Raises BaseModelError (unsupported model) and TrainingError: no training rows, a precision this machine lacks.
    """
    if not data.train:
        raise TrainingError("no training rows; at least one is needed")
    results: dict[int, TrainResult | TrainingError] = {}
    with quiet(), torch_settings(threads, resolve_device(device)):
        for precision in dict.fromkeys(job.params.base_precision for job in jobs):
            wanted = [i for i, job in enumerate(jobs) if job.params.base_precision == precision]
            began = time.monotonic()
            with _as_training_error(jobs[wanted[0]].params), frozen_base(base, precision, device) as model:
                loaded = (time.monotonic() - began) / len(wanted)
                found = _train(model, base, data, [jobs[i] for i in wanted], report, width)
            # A base that is not kept goes now: the matrices of bitsandbytes refer to themselves.
            del model
            gc.collect()
            results |= dict(zip(wanted, (_later(result, loaded) for result in found), strict=True))
    return [results[i] for i in range(len(jobs))]


def _train(
    model: Any, base: Path, data: TokenizedData, jobs: Sequence[AdapterJob], report: Report, width: int | None
) -> list[TrainResult | TrainingError]:
    packed = [i for i, job in enumerate(jobs) if pausable(job.params, vars(model.config))]
    found = train_packed(model, base, data, [jobs[i] for i in packed], report=report, width=width) if packed else []
    results = dict(zip(packed, found, strict=True))
    for i, job in enumerate(jobs):
        if i not in results:
            results[i] = _alone(model, base, data, job, report)
    return [results[i] for i in range(len(jobs))]


def _alone(
    model: Any, base: Path, data: TokenizedData, job: AdapterJob, report: Report
) -> TrainResult | TrainingError:
    if job.until is not None or job.resume is not None:
        return TrainingError(
            f"variant {job.params.variant} on base precision {job.params.base_precision} found; a training that "
            "pauses or goes on accepts lora and rslora on fp32, bf16 and nf4 alone"
        )
    began = time.monotonic()
    try:
        with _as_training_error(job.params):
            state, valid_loss = train_through_peft(model, base, data, job.params, job.out, job.seed, report)
    except TrainingError as error:
        return error
    seconds = time.monotonic() - began
    losses, curve = tuple(state.losses), tuple(state.curve)
    return TrainResult(job.out, state.step, state.tokens, seconds, losses, valid_loss, curve)


def _later(result: TrainResult | TrainingError, seconds: float) -> TrainResult | TrainingError:
    return replace(result, seconds=result.seconds + seconds) if isinstance(result, TrainResult) else result


@contextmanager
def torch_settings(threads: int | None, device: torch.device) -> Iterator[None]:
    """PyTorch's threads for this block, and its random state as before afterwards."""
    before = torch.get_num_threads()
    on_gpu = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=on_gpu):
        torch.set_num_threads(threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def _as_training_error(params: AdapterParams) -> Iterator[None]:
    """Memory that runs out becomes a TrainingError; any other error passes."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(params) from None
