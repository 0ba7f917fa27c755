"""Made-up timings, and a process that loads a core."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from objectives.latency import LatencySample
from objectives.models import Of
from objectives.timing import Asked, Block, Timing, WarmUp

ASKED = Asked(prompts=4, prompt_tokens=(12, 12), new_tokens=3, ignore_eos=True, samples=8, max_seconds=30.0,
              resident=True, sustain_seconds=0.0)
ABBA: tuple[Of, ...] = ("artifact", "reference", "reference", "artifact")


def sample(latency_ms: float) -> LatencySample:
    third = latency_ms / 3
    return LatencySample(12, 3, third, (third, third), latency_ms)


def block(of: Of, number: int, at: float, times: Sequence[float], **changes: object) -> Block:
    usual: dict[str, object] = {
        "seconds": 0.5, "outside_cores": 0.02, "steal": None, "mhz": None, "temperature_c": None, "throttled": None,
        "disturbed": False,
    }
    return Block(of=of, round=number, at=at, samples=tuple(map(sample, times)), **{**usual, **changes})  # type: ignore[arg-type]


def abba(levels: Sequence[tuple[float, float]], disturbed: dict[int, float] | None = None, wanted: int = 8) -> Timing:
    """A round for each level (artifact, reference) in ms; ``disturbed`` are blocks with the cores that others took."""
    blocks: list[Block] = []
    for number, level in enumerate(levels):
        for of in ABBA:
            i = len(blocks)
            ms = level[of == "reference"]
            taken = {"outside_cores": disturbed[i], "disturbed": True} if disturbed and i in disturbed else {}
            blocks.append(block(of, number, i * 0.6, [ms * 0.99, ms, ms * 1.02], **taken))
    asked = Asked(**{**vars(ASKED), "samples": wanted})
    return Timing(asked, (WarmUp("artifact", 5, True), WarmUp("reference", 4, True)), tuple(blocks))


@contextmanager
def busy(processes: int = 1) -> Iterator[None]:
    """So many other processes that each do nothing but take a core."""
    started = [subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
               for _ in range(processes)]
    try:
        for process in started:
            assert process.stdout
            process.stdout.readline()
        yield
    finally:
        for process in started:
            process.kill()
            process.communicate()
