"""Train one LoRA adapter on a frozen base model, with PEFT."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autotune.errors import TrainingError
from autotune.pipeline.architectures import require_supported, target_modules
from autotune.pipeline.batching import (
    backward_answer_loss,
    endless_batches,
    evaluate_loss,
    example_losses,
    make_batch,
    mean_loss,
    set_training,
)
from autotune.pipeline.frozen_base import quiet, resolve_device, supported_base_precisions
from autotune.pipeline.progress import Report, silent
from autotune.pipeline.resident import frozen_base
from autotune.pipeline.tokens import Example, TokenizedData
from search_spaces.adapter import AdapterParams

__all__ = ["TrainResult", "evaluate_loss", "supported_base_precisions", "train_adapter", "training_steps"]

_WARMUP = 0.06
_CLIP = 1.0
_VALID_EXAMPLES = 64
_SMOOTHING = 0.8


@dataclass(frozen=True)
class TrainResult:
    """``adapter`` is a folder in PEFT's format.

    ``losses[i]`` is the mean cross-entropy (nats) of the answer tokens of step i + 1's batch, before
    its update. ``valid_loss`` is that of at most 64 validation examples after training (NaN without
    any); ``curve`` holds (step, loss) on every other one of them, so its points compare with each
    other and not with ``valid_loss``. ``tokens`` counts trained-on tokens without padding; ``seconds``
    is all of it, loading and evaluation included.
    """

    adapter: Path
    steps: int
    tokens: int
    seconds: float
    losses: tuple[float, ...]
    valid_loss: float
    curve: tuple[tuple[int, float], ...]


def training_steps(params: AdapterParams, examples: int) -> int:
    """Optimizer steps: ``steps`` where given, else ``epochs`` (fractions count) over that many examples."""
    if params.steps is not None:
        return params.steps
    return max(1, round(params.epochs * math.ceil(examples / params.batch_size)))


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
    began = time.monotonic()
    if not data.train:
        raise TrainingError("no training rows; at least one is needed")
    with (
        quiet(),
        _as_training_error(params),
        _torch_settings(threads, resolve_device(device)),
        frozen_base(base, params.base_precision, device) as model,
        _with_adapter(model, base, params, seed) as adapted,
    ):
        losses, tokens, curve = _optimize(model, data, params, seed, report)
        held_out = _spread(data.valid, _VALID_EXAMPLES)
        final = example_losses(model, held_out)
        if held_out and not math.isfinite(mean_loss(final)):
            raise TrainingError(f"the validation loss is {mean_loss(final)} after training ({_lr(params)})")
        if held_out:
            curve.append((len(losses), mean_loss(final[::2])))
        _save(adapted, base, out)
    # A base that is not kept goes now: the matrices of bitsandbytes refer to themselves.
    del model, adapted
    gc.collect()
    return TrainResult(
        adapter=out,
        steps=len(losses),
        tokens=tokens,
        seconds=time.monotonic() - began,
        losses=tuple(losses),
        valid_loss=mean_loss(final),
        curve=tuple(curve),
    )


@contextmanager
def _with_adapter(model: Any, base: Path, params: AdapterParams, seed: int) -> Iterator[Any]:
    """Fresh LoRA matrices (fp32) in ``model`` for this block; gives PEFT's wrapper around it.

    PyTorch is seeded here, so that loading the model, or not having to, changes no random number.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=params.rank,
        lora_alpha=int(params.alpha) if float(params.alpha).is_integer() else params.alpha,
        lora_dropout=params.dropout,
        target_modules=target_modules(require_supported(base), params.targets),
        use_rslora=params.variant == "rslora",
        use_dora=params.variant == "dora",
    )
    torch.manual_seed(seed)
    adapted = get_peft_model(model, config)
    try:
        yield adapted
    finally:
        adapted.unload()


def _optimize(
    model: Any, data: TokenizedData, params: AdapterParams, seed: int, report: Report
) -> tuple[list[float], int, list[tuple[int, float]]]:
    """The training loop: losses of all steps, tokens seen, validation losses on the way."""
    steps = training_steps(params, len(data.train))
    batches = endless_batches(data.train, params.batch_size, seed)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=params.learning_rate, weight_decay=0.0, fused=True)
    warmup = max(1, round(_WARMUP * steps))
    probes = {steps // 4, steps // 2, 3 * steps // 4} if steps >= 8 and data.valid else set()
    held_out = _spread(data.valid, _VALID_EXAMPLES)[::2]
    losses: list[float] = []
    curve: list[tuple[int, float]] = []
    smoothed: list[float] = []
    tokens = 0
    set_training(model, True)
    for step in range(1, steps + 1):
        rate = params.learning_rate * _schedule(step, steps, warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = make_batch(next(batches), trainable[0].device)
        loss = backward_answer_loss(model, batch)
        norm = float(torch.nn.utils.clip_grad_norm_(trainable, _CLIP)) if math.isfinite(loss) else loss
        losses.append(loss)
        smoothed.append(_SMOOTHING * smoothed[-1] + (1 - _SMOOTHING) * loss if smoothed else loss)
        _require_finite(losses, norm, steps, params)
        if step > warmup and smoothed[-1] > _highest_sane_loss(smoothed, model.config.vocab_size):
            raise TrainingError(f"the loss diverged {_place(losses, steps, params)}, {smoothed[-1]:.3g} now)")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += batch.tokens
        if step in probes:
            curve.append((step, evaluate_loss(model, held_out)))
        report(step, steps, f"step {step}/{steps} loss {loss:.2f}")
    return losses, tokens, curve


def _schedule(step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate at step 1 … steps: up to 1 over the warm-up, then linearly down."""
    if step <= warmup:
        return step / warmup
    return (steps - step + 1) / (steps - warmup + 1)


def _highest_sane_loss(smoothed: Sequence[float], vocab: int) -> float:
    """The smoothed loss above which training has diverged.

    Three times the lowest so far, or clearly worse than both the start and a guess among all tokens
    alike (ln vocab), whichever is less; never below 2 nats, where batches alone differ that much.
    """
    return max(2.0, min(3 * min(smoothed), 1.25 * max(smoothed[0], math.log(vocab))))


def _require_finite(losses: Sequence[float], norm: float, steps: int, params: AdapterParams) -> None:
    place = _place(losses, steps, params)
    if not math.isfinite(losses[-1]):
        raise TrainingError(f"the loss became {losses[-1]} {place})")
    if not math.isfinite(norm):
        raise TrainingError(f"the gradient became {norm} {place}, {losses[-1]:.3g} now)")


def _place(losses: Sequence[float], steps: int, params: AdapterParams) -> str:
    """The middle of a sentence, its bracket still open."""
    return f"at step {len(losses)} of {steps} ({_lr(params)}; loss {losses[0]:.3g} at the first step"


def _lr(params: AdapterParams) -> str:
    return f"learning rate {params.learning_rate:g}"


def _spread(examples: Sequence[Example], count: int) -> list[Example]:
    """At most ``count`` examples, evenly spaced, always the same ones."""
    if len(examples) <= count:
        return list(examples)
    return [examples[i * len(examples) // count] for i in range(count)]


def _save(adapted: Any, base: Path, out: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors as PEFT's ``from_pretrained`` wants them.

    PEFT's own ``save_pretrained`` would also write a model card, record this machine's path of the
    base and, for some bases, ask the hub about them.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    tensors = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())},
        out / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config = adapted.peft_config["default"]
    config.base_model_name_or_path = base.resolve().name
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(str(out))


@contextmanager
def _torch_settings(threads: int | None, device: torch.device) -> Iterator[None]:
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
        words = str(error).lower()
        is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if is_memory or "can't allocate memory" in words or "not enough memory" in words:
            raise TrainingError(
                f"out of memory while training (batch size {params.batch_size}, rank {params.rank}, "
                f"base precision {params.base_precision}); a smaller batch or base_precision nf4 needs less"
            ) from None
        raise
