"""The k-quant rounding of llama.cpp, for zero points that are whole levels.

Source: ggml's make_qkx2_quants (ggml-quants.c, MIT), in the variant that ONNX Runtime's quantizer uses.
For each of twenty scales near the plain one, a block's weights are rounded and the scale and minimum of
least weighted squared error for those levels are found in closed form; the best of all is kept. Each
weight counts by its size: |x| plus the block's root mean square. Different from ggml:

- The zero point is a whole level (MatMulNBits has no other), so the minimum is rounded at the end and the
  levels are taken anew. ggml keeps a minimum of its own per block.
- The range that the search starts from holds zero, as in ggml, and where the best one it finds does not, the
  first is taken. ggml looks after the lower end alone. ONNX Runtime after neither: it cuts off most weights
  of a block whose weights all have one sign.

Almost all of the time goes into the search, a dozen passes over the weights for each of the twenty scales.
What makes it fast: blocks lie along the first axis, so that sums run over rows; pieces stay in a cache;
every pass writes into memory that the thread reuses; and the error has a closed form. NumPy and not torch,
because its operations stay on the thread that calls them, whatever torch.set_num_threads says.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np

from autotune.pipeline.pieces import threads

Array = np.ndarray[Any, np.dtype[np.float32]]
Levels = np.ndarray[Any, np.dtype[np.uint8]]

#: Scales tried after the plain one: its range is cut in top - 1, top - 0.9, … top + 0.9 steps.
_TRIALS = 20

#: Weights a thread works on at a time, in five buffers of 1 MB. With fewer the calls cost more than the work.
_PIECE = 2**18

#: From this many bits on the squared error is summed over the weights, a third more work. The difference of two
#: large fp32 sums, a ten-thousandth wrong for 16 levels, would be a hundredth wrong for 256.
_EXACT_BITS = 8


def k_quant(source: Array, bits: int) -> tuple[Levels, Array, Levels]:
    """Round finite fp32 ``source`` [n, block] to ``bits`` (2 to 8) with a scale and a zero point for each block.

    Returns levels [n, block] (uint8), scales [n, 1] (fp32) and zero points [n, 1] (uint8); a weight is
    about scale · (level - zero point). Runs on several threads (`pieces.threads`); may be called from any thread.
    """
    blocks, block = source.shape
    levels, zeros = np.empty((blocks, block), np.uint8), np.empty((blocks, 1), np.uint8)
    scales = np.empty((blocks, 1), np.float32)
    count = threads()
    pieces = max(1, -(-blocks * block // (_PIECE * count))) * count
    # An odd multiple of 16 blocks: rows a power of two apart share a few cache lines, and the transposition
    # takes five times as long.
    size = -(-blocks // pieces) // 32 * 32 + 16
    memory: SimpleQueue[_Memory] = SimpleQueue()
    for _ in range(count):
        memory.put(_Memory.of(block, min(size, blocks)))

    def work(start: int) -> None:
        part = slice(start, start + size)
        mine = memory.get()
        try:
            scales[part, 0], zeros[part, 0] = _round(source[part], bits, mine.first(len(source[part])), levels[part])
        finally:
            memory.put(mine)

    with ThreadPoolExecutor(count) as pool:
        for _done in pool.map(work, range(0, blocks, size)):
            pass
    return levels, scales, zeros


@dataclass(frozen=True)
class _Memory:
    """A thread's buffers [block, n]; ``product`` is the importance times the weights less their mean."""

    x: Array
    importance: Array
    product: Array
    level: Array
    scratch: Array

    @staticmethod
    def of(block: int, blocks: int) -> _Memory:
        return _Memory(*(np.empty((block, blocks), np.float32) for _ in range(5)))

    def first(self, blocks: int) -> _Memory:
        return _Memory(*(buffer[:, :blocks] for buffer in vars(self).values()))


def _round(source: Array, bits: int, m: _Memory, levels: Levels) -> tuple[Array, Array]:
    """Round blocks [n, block] into ``levels`` [n, block]; returns scales [n] and zero points [n]."""
    top = 2**bits - 1
    np.copyto(m.x, source.T)
    np.abs(m.x, out=m.importance)
    # A power of two changes no digit, and squares of very small or large weights stay within fp32.
    exponent = np.clip(np.frexp(m.importance.max(0))[1], -126, 126)
    unit = np.ldexp(np.float32(1), -exponent)
    np.multiply(m.x, unit, out=m.x)
    np.multiply(m.importance, unit, out=m.importance)
    low, high = np.minimum(m.x.min(0), 0), np.maximum(m.x.max(0), 0)
    high[high == low] = top  # nothing but zeros: scale 1
    np.add(m.importance, np.sqrt(_sum(m.x, m.x) / np.float32(len(m.x))), out=m.importance)
    total = m.importance.sum(0)
    total[total == 0] = 1
    scale, minimum = _search(m, top, bits >= _EXACT_BITS, low.copy(), high, total)
    zero = -minimum / scale
    # A search that left zero outside its range would have the levels cut off; the plain range holds it.
    outside = np.abs(zero - top / 2) > (top + 1) / 2
    np.putmask(scale, outside, (high - low) / top)
    np.putmask(zero, outside, -low / scale)
    zero = np.clip(np.rint(zero), 0, top)
    np.divide(m.x, scale, out=m.level)
    np.add(m.level, zero, out=m.level)
    np.rint(m.level, out=m.level)
    m.level.clip(0, top, out=m.level)
    np.copyto(levels, m.level.T, casting="unsafe")
    return np.ldexp(scale, exponent), zero


def _search(m: _Memory, top: int, exact: bool, minimum: Array, high: Array, total: Array) -> tuple[Array, Array]:
    """The best scale [n] and minimum [n].

    With y = x - mean(x), all means and sums weighted, the best line through levels l has the slope
    s = Σ w y l / v, where v = Σ w l² - (Σ w l)² / Σ w, and passes through both means. The squared error is
    Σ w y² - s · Σ w y l, so the best trial has the largest s · Σ w y l.
    """
    mean = _sum(m.importance, m.x) / total
    np.subtract(m.x, mean, out=m.scratch)
    np.multiply(m.importance, m.scratch, out=m.product)
    sum_y2 = _sum(m.product, m.scratch)
    # Levels that are all equal have v = 0 but for rounding, and no line through them. Where two differ, the
    # end of the range holds at least 1 / (2 · block) of the importance, and v is far above this.
    least = total * np.float32(1e-5 * top * top)
    spread = high - minimum
    scale = spread / np.float32(top)
    inverse = _cut(m, m.scratch, top, top, minimum, spread)
    error = _left_over(m) / np.square(inverse)
    best = -error if exact else sum_y2 - error
    for trial in range(_TRIALS):
        # The minimum found so far is where the next rounding starts from, as in ggml.
        inverse = _cut(m, m.scratch if exact else m.level, top, top - 1 + trial / 10, minimum, spread)
        sum_l, sum_yl = _sum(m.importance, m.level), _sum(m.product, m.level)
        mean_l = sum_l / total
        v = _sum(m.importance, m.level, m.level) - sum_l * mean_l
        new_scale = sum_yl / np.maximum(v, least)
        if exact:
            # The line takes from what rounding left over a slope and a mean.
            offset = (mean - minimum) * inverse - mean_l
            error = _left_over(m) - v * np.square(new_scale * inverse - 1) - total * np.square(offset)
            gain = -error / np.square(inverse)
        else:
            gain = new_scale * sum_yl
        better = (gain > best) & (v > least)
        np.putmask(best, better, gain)
        np.putmask(scale, better, new_scale)
        np.putmask(minimum, better, mean - new_scale * mean_l)
        np.subtract(high, minimum, out=spread)
    return scale, minimum


def _cut(m: _Memory, position: Array, top: int, steps: float, minimum: Array, spread: Array) -> Array:
    """Levels when ``spread`` from ``minimum`` on is cut in so many steps; returns the step's inverse [n].

    Leaves (x - minimum) · inverse in ``position`` and the level in ``m.level``; both may be the same.
    """
    inverse = np.float32(steps) / spread
    np.subtract(m.x, minimum, out=position)
    np.multiply(position, inverse, out=position)
    np.rint(position, out=m.level)
    m.level.clip(0, top, out=m.level)
    return inverse


def _left_over(m: _Memory) -> Array:
    """Σ w (position - level)² after a cut into ``scratch``, in squared steps; overwrites it."""
    np.subtract(m.scratch, m.level, out=m.scratch)
    return _sum(m.importance, m.scratch, m.scratch)


def _sum(*factors: Array) -> Array:
    """Σ of the product of arrays [block, n] over the first axis, in one pass and without a temporary.

    A row is added after the other; sixteen at a time, so that long blocks do not gather rounding errors.
    """
    rows, columns = factors[0].shape
    groups = [factor.reshape(-1, rows if rows % 16 else 16, columns) for factor in factors]
    sums: Array = np.einsum(",".join(["gij"] * len(groups)) + "->gj", *groups)
    total: Array = sums.sum(0)
    return total
