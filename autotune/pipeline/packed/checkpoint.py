"""A paused training on disk: an adapter in PEFT's format, and beside it what the next step needs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autotune.errors import TrainingError
from autotune.pipeline.packed.sites import Matrices, Tensors
from autotune.pipeline.packed.slots import Slot
from autotune.pipeline.peft_format import ADAPTER_FILE, PREFIX, save_adapter

STATE_FILE = "training_state.json"
TENSORS_FILE = "training_state.safetensors"
_RNG = "rng"


def save(slot: Slot, matrices: Matrices, base: Path) -> None:
    """Write the adapter of ``slot`` to its folder; and, where it is paused, what ``resume`` needs."""
    from safetensors.torch import save_file

    out = slot.job.out
    save_adapter({PREFIX + name: tensor for name, tensor in matrices.weights.items()}, base, slot.job.params, out)
    if slot.state.step == slot.state.steps:
        return
    tensors = {f"exp_avg.{name}": tensor.contiguous() for name, tensor in matrices.exp_avg.items()}
    tensors |= {f"exp_avg_sq.{name}": tensor.contiguous() for name, tensor in matrices.exp_avg_sq.items()}
    save_file(tensors | {_RNG: slot.rng.get_state()}, out / TENSORS_FILE)
    state = {"losses": slot.state.losses, "curve": slot.state.curve, "tokens": slot.state.tokens, **_identity(slot)}
    (out / STATE_FILE).write_text(json.dumps(state), encoding="utf-8")


def resume(slot: Slot, folder: Path) -> Matrices:
    """Set ``slot`` to where the checkpoint in ``folder`` was written; gives its matrices.

    Raises TrainingError when there is none, or its parameters, seed or number of steps are others.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / STATE_FILE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS_FILE)
        weights = load_file(folder / ADAPTER_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(f"{folder}: no checkpoint can be read ({error}); accepted is the folder of a paused "
                            "training") from None
    for key, wanted in _identity(slot).items():
        if state.get(key) != wanted:
            raise TrainingError(f"{path}: {key}: {state.get(key)!r} found; accepted is {wanted!r}, which the job names")
    slot.state.resume(state["losses"], state["curve"], state["tokens"])
    slot.rng.set_state(tensors[_RNG])

    def kind(prefix: str) -> Tensors:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    return Matrices(
        {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}, kind("exp_avg."), kind("exp_avg_sq.")
    )


def _identity(slot: Slot) -> dict[str, Any]:
    """What must be the same when it goes on."""
    return {"params": asdict(slot.job.params), "seed": slot.job.seed, "steps": slot.state.steps}

