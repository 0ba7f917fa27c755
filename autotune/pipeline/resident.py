"""The frozen base model that a worker process keeps between trainings: loaded once, lent out, taken back.

A lent model is out of the slot. It comes back after its block alone, and only when it is the very model that
was loaded: an adapter that was not removed, a weight that moved, a rotary cache that grew all end in the
next caller's loading it anew. So an adapter is bit for bit the one that a fresh process trains.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from autotune.errors import TrainingError
from autotune.pipeline.frozen_base import load_frozen, require_precision, resolve_device
from search_spaces.adapter import BasePrecision

#: Of the memory still available, the share that an idle model may hold: the other stages need theirs.
_MAX_SHARE = 1 / 3
#: Tensors up to this size are compared by content (norms, scales, rotary frequencies), larger ones by identity.
_COMPARED_BYTES = 1 << 16
#: State of bitsandbytes' int8 matrices that moves between the weight and its module as they are used.
_INT8_STATISTICS = ("CB", "SCB")

_Key = tuple[str, tuple[tuple[str, int, int], ...], str, str]
_Fingerprint = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class _Int8Weight:
    """An int8 matrix as it was loaded. PEFT's DoRA puts copies in its place."""

    module: Any
    weight: Any
    data: torch.Tensor
    scales: torch.Tensor


@dataclass(frozen=True)
class _Resident:
    key: _Key
    model: Any
    int8: tuple[_Int8Weight, ...]
    fingerprint: _Fingerprint


_slot: list[_Resident] = []


@contextmanager
def frozen_base(base: Path, precision: BasePrecision, device: str = "auto") -> Iterator[Any]:
    """The model of ``load_frozen``, in eval mode, for this block; kept for the next one that asks for the same.

    The same means: folder, names, sizes and times of its configuration and weights (which settle the attention
    implementation), precision and device. Whoever adapts the model removes the adapter before the block
    ends. After an error other than a TrainingError, and where the model is larger than a third of
    the memory then available, nothing is kept.

    Raises what ``load_frozen`` raises. One thread at a time.
    """
    require_precision(precision, device)
    key = _identity(base, precision, device)
    held = _take(key) or _load(key, base, precision, device)
    keep = False
    try:
        yield held.model
        keep = True
    except TrainingError:
        keep = True
        raise
    finally:
        if keep:
            _give_back(held)


def release() -> None:
    """Let the resident model go, if there is one."""
    _slot.clear()
    gc.collect()


def _identity(base: Path, precision: str, device: str) -> _Key:
    folder = base.resolve()
    patterns = ("config.json", "*.safetensors", "*.safetensors.index.json")
    files = sorted(f for pattern in patterns for f in folder.glob(pattern))
    stats = ((f.name, f.stat()) for f in files)
    content = tuple((name, s.st_size, s.st_mtime_ns) for name, s in stats)
    return str(folder), content, precision, str(resolve_device(device))


def _take(key: _Key) -> _Resident | None:
    """The resident model if it is this one; any other is let go, so that there never are two."""
    if _slot and _slot[0].key == key:
        return _slot.pop()
    release()
    return None


def _load(key: _Key, base: Path, precision: BasePrecision, device: str) -> _Resident:
    model = load_frozen(base, precision, device)
    int8 = tuple(
        _Int8Weight(module, module.weight, module.weight.data, module.weight.SCB)
        for module in model.modules()
        if type(module).__name__ == "Linear8bitLt"
    )
    return _Resident(key, model, int8, _fingerprint(model))


def _give_back(held: _Resident) -> None:
    held.model.eval()
    for matrix in held.int8:
        _restore(matrix)
    if _fingerprint(held.model) == held.fingerprint and _affordable(held.model):
        _slot[:] = [held]


def _restore(matrix: _Int8Weight) -> None:
    """As before the first use, when the statistics are still the weight's own."""
    matrix.weight.data = matrix.data
    matrix.weight.CB, matrix.weight.SCB = matrix.data, matrix.scales
    matrix.module.weight = matrix.weight
    matrix.module.state.reset_grads()


def _fingerprint(model: Any) -> _Fingerprint:
    """Everything about the model that a training could leave changed, in order."""
    marks: list[tuple[Any, ...]] = []
    for name, module in model.named_modules():
        plain = {k: v for k, v in vars(module).items() if v is None or isinstance(v, (bool, int, float, str))}
        hooks = len(module._forward_pre_hooks) + len(module._forward_hooks) + len(module._backward_hooks)
        marks.append((name, type(module), hooks, sorted(plain.items())))
        tensors = [*module._parameters.items(), *module._buffers.items()]
        marks += [(name, key, *_mark(tensor)) for key, tensor in tensors if tensor is not None]
    return tuple(marks)


def _mark(tensor: torch.Tensor) -> tuple[Any, ...]:
    size = tensor.numel() * tensor.element_size()
    content = tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes() if size <= _COMPARED_BYTES else b""
    state = getattr(tensor, "quant_state", None)
    packed = state is not None and (bool(getattr(state, "packing_format_for_cpu", False)), state.absmax.data_ptr())
    identity = (type(tensor), tensor.dtype, tuple(tensor.shape), tensor.data_ptr(), tensor.requires_grad)
    # In-place changes count up the version; int8 weights are set anew when given back, which counts too.
    version = 0 if hasattr(tensor, "SCB") else tensor._version
    return *identity, version, tensor.grad is None, packed, content


def _affordable(model: Any) -> bool:
    tensors = [*model.parameters(), *model.buffers()]
    size = sum(t.numel() * t.element_size() for t in tensors)
    where = tensors[0].device
    if where.type == "cuda":
        cached = torch.cuda.memory_reserved(where) - torch.cuda.memory_allocated(where)
        available = torch.cuda.mem_get_info(where)[0] + cached
    else:
        available = psutil.virtual_memory().available
    return bool(size <= _MAX_SHARE * available)
