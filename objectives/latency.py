"""Timings of single requests through the library's own generation loop, and the numbers made of them."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from objectives.session import ids_array, new_generator


@dataclass(frozen=True)
class LatencySample:
    """One request, in milliseconds of wall time.

    ``ttft_ms`` runs from handing over the prompt to the first new token, ``token_ms[i]`` from new token i
    to new token i + 1 (so it has ``new_tokens - 1`` members), ``latency_ms`` to the last one. The
    end-of-sequence token counts as a new token where it was generated. Making the generator is not in
    these times.
    """

    prompt_tokens: int
    new_tokens: int
    ttft_ms: float
    token_ms: tuple[float, ...]
    latency_ms: float


def _tpot_ms(sample: LatencySample) -> float | None:
    """Time per output token after the first, as in MLPerf Inference: (latency - ttft) / (tokens - 1)."""
    if sample.new_tokens < 2:
        return None
    return (sample.latency_ms - sample.ttft_ms) / (sample.new_tokens - 1)


#: objective → its value for one request, or None where the request has none.
VALUES: dict[str, Callable[[LatencySample], float | None]] = {
    "ttft_ms": lambda s: s.ttft_ms,
    "tpot_ms": _tpot_ms,
    "latency_ms": lambda s: s.latency_ms,
    "tokens_per_s": lambda s: s.new_tokens / (s.latency_ms / 1000),
}


def values(objective: str, samples: Iterable[LatencySample]) -> list[float]:
    """The objective's value for every request that has one; one value a request, because tokens
    of the same request are not independent of each other."""
    of = VALUES[objective]
    return [v for v in map(of, samples) if v is not None]


def time_request(
    model: Any, prompt: Sequence[int], new_tokens: int, *,
    ignore_eos: bool, stop_ids: frozenset[int] = frozenset(), min_generator_length: int = 0,
) -> LatencySample:
    """Time one greedy request.

    With ``ignore_eos`` exactly ``new_tokens`` tokens are generated, otherwise at most that many, ending
    with the artifact's own end-of-sequence tokens or one of ``stop_ids``. Raises RuntimeError when the
    library stops early although the end of sequence is ignored.
    """
    ids = ids_array(prompt)
    generator = new_generator(
        model, max(len(prompt) + new_tokens, min_generator_length), ignore_eos=ignore_eos
    )
    stops = frozenset() if ignore_eos else stop_ids
    stamps: list[int] = []
    # A collection in the middle of a request would be counted as the model's time.
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter_ns()
        generator.append_tokens(ids)
        while len(stamps) < new_tokens and not generator.is_done():
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            stamps.append(time.perf_counter_ns())
            if token in stops:
                break
    finally:
        gc.enable()
    if ignore_eos and len(stamps) != new_tokens:
        raise RuntimeError(f"asked for {new_tokens} new tokens past the end of sequence, got {len(stamps)}")
    times = [(stamp - start) / 1e6 for stamp in stamps]
    gaps = tuple(b - a for a, b in itertools.pairwise(times))
    return LatencySample(len(prompt), len(times), times[0], gaps, times[-1])
