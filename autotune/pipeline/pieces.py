"""Work on weights in pieces that fit a core's cache, several at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

#: Weights of a piece: 1 MB in fp32.
_WEIGHTS = 2**18
#: NumPy's calls take the interpreter's lock in turns: on sixteen cores k-quant is fastest with four threads, 2.5 times
#: as fast as with one; with sixteen it takes 1.7 times as long as with four.
_MOST_THREADS = 4


def threads() -> int:
    """How many pieces to work on at once: as many as torch has threads, up to where more hold each other up."""
    return min(torch.get_num_threads(), _MOST_THREADS)


def in_pieces(rows: int, columns: int, work: Callable[[slice], object]) -> None:
    """``work`` on slices that cover ``rows``, each of ``columns`` weights. What it raises passes through.

    Of use where ``work`` is made of NumPy's operations: those stay on the thread that calls them, while torch's meet
    after every one, which takes longer than a piece's short operations do.
    """
    size = max(1, _WEIGHTS // max(1, columns))
    with ThreadPoolExecutor(threads()) as pool:
        for _done in pool.map(work, (slice(start, min(start + size, rows)) for start in range(0, rows, size))):
            pass
