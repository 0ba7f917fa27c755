"""What a training step of packed adapters must compute, what this machine can, and where a GPU's time goes."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from benchmarks.shapes import ModelShape, tensors

#: Kind of kernel by the first expression that its name matches.
KINDS = (
    ("attention", r"flash|fmha|attention|sdpa|cudnn_generated"),
    ("matrix products", r"gemm|cutlass|cublas|nvjet|splitk|gemv|xmma"),
    ("fused by the compiler", r"^triton"),
    ("optimizer", r"multi_tensor|adam"),
    ("copies", r"memcpy|memset|copy"),
    ("element by element", r"elementwise|vectorized|reduce|softmax|index|cat|fill"),
)


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one step of one adapter, counted; a multiplication with its addition is two."""

    base: int
    adapter: int
    attention: int
    head: int

    @property
    def total(self) -> int:
        return self.base + self.adapter + self.attention + self.head


def count(shape: ModelShape, rank: int, rows: int, tokens: int, answers: int) -> Flops:
    """``rows`` of ``tokens`` with ``answers`` answer tokens each; LoRA of that rank on all linear modules.

    Frozen matrices: forward and the gradient of their inputs, 2 · in · out each a token. LoRA matrices: forward and
    both gradients. Attention: two products forward and four backward, the causal half of each. The head: on answer
    tokens alone. What a compiler or a fused attention computes twice is counted once.
    """
    config = shape.config
    matrices = [dims for name, dims in tensors(shape) if len(dims) == 2 and ".layers." in name]
    places = rows * tokens
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    width, layers = config["num_attention_heads"] * head, config["num_hidden_layers"]
    return Flops(
        base=4 * places * sum(out * inner for out, inner in matrices),
        adapter=6 * places * rank * sum(out + inner for out, inner in matrices),
        attention=6 * rows * tokens * tokens * width * layers,
        head=4 * rows * answers * config["hidden_size"] * config["vocab_size"],
    )


def matmul_peak(device: Any, size: int) -> float:
    """FLOP/s of a bf16 product of two random square matrices: the median of ten, after three."""
    import torch

    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(13):
        wait(device)
        began = time.perf_counter()
        a @ b
        wait(device)
        times.append(time.perf_counter() - began)
    return float(2 * size**3 / sorted(times[3:])[5])


def bandwidth(device: Any, size: int) -> float:
    """Bytes a second of a copy on the device, read and written counted."""
    import torch

    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(8):
        wait(device)
        began = time.perf_counter()
        target.copy_(source)
        wait(device)
        times.append(time.perf_counter() - began)
    return 2 * size / sorted(times[3:])[2]


def wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Watch:
    """A Report that profiles the GPU from the end of one step to the end of another."""

    def __init__(self, first: int, last: int) -> None:
        from torch.profiler import ProfilerActivity, profile

        self._profiler = profile(activities=[ProfilerActivity.CUDA])
        self._first, self._last, self._step = first, last, 0

    def __call__(self, done: float, total: float, note: str = "") -> None:
        import torch

        self._step += 1
        if self._step in (self._first, self._last):
            torch.cuda.synchronize()
        if self._step == self._first:
            self._profiler.start()
        elif self._step == self._last:
            self._profiler.stop()

    def found(self) -> tuple[float, dict[str, float]]:
        """Kernels launched, and their milliseconds by kind, a step."""
        steps = self._last - self._first
        spent: Counter[str] = Counter()
        launched = 0
        for event in self._profiler.events() or ():
            if "CUDA" not in str(event.device_type):
                continue
            launched += 1
            name = event.name.lower()
            kind = next((kind for kind, words in KINDS if re.search(words, name)), "other")
            spent[kind] += event.device_time / 1e3 / steps
        return launched / steps, dict(spent.most_common())
