"""What makes a step quick on a GPU: attention without masks, decoder layers compiled, a whole pass as a CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch

from autotune.pipeline.packed.batch import PackedBatch
from autotune.pipeline.packed.dropout import HashedNoise
from autotune.pipeline.packed.pack import Backward, plain_backward
from autotune.pipeline.packed.stack import Stack

Speed = Literal["auto", "eager", "compiled", "graphed"]

_CAUSAL = "causal_sdpa"
#: Shapes of batches that are compiled, or captured, before further ones run as they are.
_SHAPES = 32
#: Seconds of training still to come from which on compiling, which takes about one minute, is won back for certain.
_COMPILE_FROM = 300.0


@contextmanager
def fast_attention(model: Any, longest: int) -> Iterator[None]:
    """On a GPU, the fused attention without a mask in this block, where no row is as long as a sliding window.

    transformers looks for several sequences in one row at each pass, which waits for the GPU; under an
    attention function of another name it leaves masks to the caller, and ours is always causal.
    """
    config = model.config
    before = config._attn_implementation
    window = getattr(config, "sliding_window", None)
    if model.device.type != "cuda" or before != "sdpa" or (window is not None and longest + 64 >= window):
        yield
        return
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register(_CAUSAL, sdpa_attention_forward)
    config._attn_implementation = _CAUSAL
    try:
        yield
    finally:
        config._attn_implementation = before


class Quickening:
    """The pass of a step at some speed; ``close`` leaves the model as it was.

    ``auto`` begins eagerly, and compiles on a GPU once it is told of enough work to come.
    """

    def __init__(self, model: Any, speed: Speed) -> None:
        self._model, self._speed = model, speed
        self._undo = ExitStack()
        self.backward: Backward = GraphedBackward() if speed == "graphed" else plain_backward
        if speed in ("compiled", "graphed"):
            self._undo.enter_context(compiled_layers(model))

    def consider(self, seconds: float) -> None:
        """About so many seconds of training are to come at the present speed."""
        if self._speed == "auto" and self._model.device.type == "cuda" and seconds > _COMPILE_FROM:
            self._undo.enter_context(compiled_layers(self._model))
            self._speed = "compiled"

    def close(self) -> None:
        self._undo.close()


@contextmanager
def compiled_layers(model: Any) -> Iterator[None]:
    """Each decoder layer compiled in this block, for training alone.

    Layers that are alike share one compilation; from the second length of rows on it is one for any length.
    """
    layers = list(model.model.layers)
    with torch._dynamo.config.patch(recompile_limit=_SHAPES):
        for layer in layers:
            layer.forward = _when_training(layer.forward, torch.compile(layer.forward))
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward


def _when_training(plain: Callable[..., Any], compiled: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else plain)(*args, **kwargs)

    return forward


class GraphedBackward:
    """A pass captured as a CUDA graph for each shape of batch, and replayed: one launch instead of thousands.

    A shape is captured when it comes up for the second time. A graph belongs to the memory of one stack.
    """

    def __init__(self) -> None:
        self._graphs: dict[Any, _Graph] = {}
        self._seen: set[Any] = set()
        self._stack: Stack | None = None
        self._pool: Any = None

    def __call__(self, model: Any, stack: Stack, batch: PackedBatch) -> torch.Tensor:
        if stack is not self._stack:
            self._graphs.clear()
            self._seen.clear()
            self._stack, self._pool = stack, torch.cuda.graph_pool_handle()
        key = (stack.count, *(tuple(tensor.shape) for tensor in _tensors(batch)))
        if key not in self._seen or (key not in self._graphs and len(self._graphs) >= _SHAPES):
            self._seen.add(key)
            return plain_backward(model, stack, batch)
        if key not in self._graphs:
            self._graphs[key] = _Graph(model, stack, batch, self._pool)
        return self._graphs[key].replay(batch)


class _Graph:
    def __init__(self, model: Any, stack: Stack, batch: PackedBatch, pool: Any) -> None:
        self._held = _tensors(batch)
        self._graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            plain_backward(model, stack, batch)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.empty_cache()
        with torch.cuda.graph(self._graph, pool=pool):
            self._losses = plain_backward(model, stack, batch)

    def replay(self, batch: PackedBatch) -> torch.Tensor:
        for held, given in zip(self._held, _tensors(batch), strict=True):
            if held is not given:
                held.copy_(given)
        self._graph.replay()
        return self._losses.clone()


def _tensors(batch: PackedBatch) -> list[torch.Tensor]:
    """What a pass over the batch reads, in order."""
    inner = batch.batch
    tensors = [inner.ids, inner.row, inner.column, inner.target, batch.parts.of, batch.parts.answers]
    if batch.groups is not None:
        tensors += [batch.groups.gather, batch.groups.scatter]
    if isinstance(batch.noise, HashedNoise):
        tensors += [batch.noise.seed, batch.noise.row, batch.noise.rate]
    return tensors
