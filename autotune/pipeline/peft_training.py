"""One adapter trained through PEFT's own modules: what packed training cannot hold, and what it is compared with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from autotune.pipeline.batching import (
    backward_answer_loss,
    endless_batches,
    evaluate_loss,
    example_losses,
    make_batch,
    mean_loss,
    set_training,
)
from autotune.pipeline.peft_format import lora_config, save_adapter
from autotune.pipeline.progress import Report, silent
from autotune.pipeline.recipe import CLIP, TrainingState, held_out
from autotune.pipeline.tokens import Example, TokenizedData
from search_spaces.adapter import AdapterParams


def train_through_peft(
    model: Any, base: Path, data: TokenizedData, params: AdapterParams, out: Path, seed: int,
    report: Report = silent,
) -> tuple[TrainingState, float]:
    """Train on the frozen ``model`` of the folder ``base``, write the adapter to ``out``, leave the model as it was.

    Gives the state after the last step, its curve complete, and the validation loss. Raises TrainingError.
    """
    with with_adapter(model, base, params, seed) as adapted:
        state = TrainingState(params, len(data.train), model.config.vocab_size, bool(data.valid))
        _optimize(model, data, state, seed, report)
        valid_loss = _finish(model, held_out(data.valid), state)
        _save(adapted, base, params, out)
    return state, valid_loss


@contextmanager
def with_adapter(model: Any, base: Path, params: AdapterParams, seed: int) -> Iterator[Any]:
    """Fresh LoRA matrices (fp32) in ``model`` for this block; gives PEFT's wrapper around it.

    PyTorch is seeded here, so that loading the model, or not having to, changes no random number.
    """
    from peft import get_peft_model

    torch.manual_seed(seed)
    adapted = get_peft_model(model, lora_config(base, params))
    try:
        yield adapted
    finally:
        adapted.unload()


def _optimize(model: Any, data: TokenizedData, state: TrainingState, seed: int, report: Report) -> None:
    params = state.params
    batches = endless_batches(data.train, params.batch_size, seed)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=params.learning_rate, weight_decay=0.0, fused=True)
    for_curve = held_out(data.valid)[::2]
    set_training(model, True)
    while state.step < state.steps:
        for group in optimizer.param_groups:
            group["lr"] = state.next_rate()
        batch = make_batch(next(batches), trainable[0].device)
        loss = backward_answer_loss(model, batch)
        norm = float(torch.nn.utils.clip_grad_norm_(trainable, CLIP)) if math.isfinite(loss) else loss
        state.add(loss, norm, batch.tokens)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if state.probes:
            state.curve.append((state.step, evaluate_loss(model, for_curve)))
        report(state.step, state.steps, f"step {state.step}/{state.steps} loss {loss:.2f}")


def _finish(model: Any, valid: Sequence[Example], state: TrainingState) -> float:
    """The validation loss; the last point of the curve."""
    final = example_losses(model, valid)
    if valid:
        state.finish(mean_loss(final))
        state.curve.append((state.step, mean_loss(final[::2])))
    return mean_loss(final)


def _save(adapted: Any, base: Path, params: AdapterParams, out: Path) -> None:
    from peft import get_peft_model_state_dict

    save_adapter(get_peft_model_state_dict(adapted, save_embedding_layers=False), base, params, out)
