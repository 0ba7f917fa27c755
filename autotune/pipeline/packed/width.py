"""How many adapters train together: what memory allows, and on a CPU no more than what saves time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

#: Of the memory that is free, what a plan may fill: the rest is lost between blocks, or to longer rows.
_SHARE = 0.9
#: Steps timed at each width on a CPU, after one to warm up; and the gain in tokens a second that a wider one must show.
_STEPS = 4
_GAIN = 1.1


def depends_on_length(config: Any, longest: int) -> bool:
    """Whether rotary angles may change with the length that rows are padded to, so that company would change a result.

    Long-context variants take other angles for the whole batch once it is longer than the model's original context.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    if not any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds):
        return False
    originals = [kind.get("original_max_position_embeddings") for kind in kinds]
    originals += [getattr(config, "original_max_position_embeddings", None), config.max_position_embeddings]
    original: int = min(length for length in originals if length)
    return longest > original


def widest(fixed: float, each: float, available: float) -> int:
    """Adapters whose ``each`` bytes fit beside ``fixed`` ones; at least one."""
    return max(1, int((_SHARE * available - fixed) // max(each, 1.0)))


def plan_on_gpu(peak: Callable[[int], int], device: torch.device, most: int) -> int:
    """At most ``most``: as many as fit by the peaks, in bytes above what is allocated before, of one and of two."""
    if most == 1:
        return 1
    torch.cuda.empty_cache()
    available = torch.cuda.mem_get_info(device)[0]
    try:
        one, two = peak(1), peak(2)
    except torch.OutOfMemoryError:
        return 1
    each = two - one
    return min(most, widest(one - each, each, available))


@contextmanager
def saved_bytes(model: Any) -> Iterator[Callable[[], int]]:
    """Counts the bytes that the forward pass in this block keeps for its backward, the base's weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield lambda: sum(kept.values())


@dataclass
class WidthSearch:
    """Doubles the width while that trains clearly more tokens a second, and takes it back where it does not.

    The steps that it times are steps of the training, so nothing is spent on it but that some may be slow ones.
    """

    most: int
    width: int = 1
    _settled: bool = False
    _narrower: int = 1
    _best: float = 0.0
    _seen: list[tuple[float, int]] = field(default_factory=list)

    def add(self, adapters: int, seconds: float, tokens: int) -> int:
        """A step took ``seconds`` for ``tokens``; gives the width for the next one."""
        if self._settled or self.most == 1 or adapters != self.width:
            return self.width
        self._seen.append((seconds, tokens))
        if len(self._seen) > _STEPS:
            timed = self._seen[1:]
            self._judge(sum(n for _, n in timed) / sum(s for s, _ in timed))
        return self.width

    def limit(self, most: int) -> int:
        """Never more than ``most`` from now on."""
        self.most = min(self.most, most)
        self.width = min(self.width, self.most)
        return self.width

    def _judge(self, rate: float) -> None:
        self._seen.clear()
        if rate < _GAIN * self._best:
            self.width = self._narrower
            self._settled = True
            return
        self._best, self._narrower = rate, self.width
        self._settled = self.width >= self.most
        self.width = min(2 * self.width, self.most)
