"""Whether a timing can be trusted: which requests count, drift, and the sentence on it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from objectives import trend
from objectives.base import Direction
from objectives.latency import LatencySample
from objectives.models import Of
from objectives.timing import Block, Timing

State = Literal["steady", "disturbed", "drifting"]

#: A level that moved by less than this share of itself over a task, or by as little as chance may move it, is no drift.
_DRIFT_SHARE = 0.05
_DRIFT_P = 0.01


@dataclass(frozen=True)
class Drift:
    """The change of the level from the first to the last block, as a share (0.14: 14 % slower), and the chance ``p``
    of as clear a trend on a steady machine; 1 where there are too few blocks for one."""

    change: float
    p: float

    @property
    def real(self) -> bool:
        return abs(self.change) > _DRIFT_SHARE and self.p < _DRIFT_P


@dataclass(frozen=True)
class Steadiness:
    """``disturbed``: requests count during which others took more than a limit, as the budget ended before there were
    enough without. ``drifting``: the level moved. Neither is evidence about a limit on latency.

    ``outside_cores`` is the mean of what others took, a hypervisor included, in the ``disturbed_blocks``, or in all
    ``blocks`` where none is. ``throttled_blocks`` is None where the system does not tell.
    """

    state: State
    outside_cores: float
    disturbed_blocks: int
    blocks: int
    throttled_blocks: int | None
    drift: Drift
    warmup_requests: int
    flat: bool

    def sentence(self) -> str:
        parts = []
        if self.disturbed_blocks:
            parts.append(f"other processes took {self.outside_cores:.1f} cores in {self.disturbed_blocks} of "
                         f"{self.blocks} blocks{'' if self.state == 'disturbed' else ', which were timed again'}")
        if self.drift.real:
            slower = "slowed down" if self.drift.change > 0 else "became faster"
            parts.append(f"the machine {slower} by {abs(self.drift.change):.0%} while it was measured")
        if self.throttled_blocks:
            parts.append(f"the processor throttled itself in {self.throttled_blocks} of {self.blocks} blocks")
        if not self.flat:
            parts.append(f"times were not yet level after {self.warmup_requests} requests of warm-up")
        return "; ".join(parts) or f"others took {self.outside_cores:.2f} cores in {self.blocks} blocks, and no drift"


def used_blocks(timing: Timing) -> tuple[Block, ...]:
    """Those of the rounds that nothing disturbed; where these gave fewer samples than were asked for, of the least
    disturbed ones too, until there are as many. It is the load that chooses among rounds, never their times."""
    rounds: dict[int, list[Block]] = {}
    for block in timing.blocks:
        rounds.setdefault(block.round, []).append(block)

    def load(number: int) -> tuple[bool, float]:
        return any(b.disturbed for b in rounds[number]), max(b.outside_cores + (b.steal or 0) for b in rounds[number])

    used: set[int] = set()
    samples = 0
    for number in sorted(rounds, key=load):
        if load(number)[0] and samples >= timing.asked.samples:
            break
        used.add(number)
        samples += len(samples_of(rounds[number], "artifact"))
    return tuple(block for block in timing.blocks if block.round in used)


def used_samples(timing: Timing) -> tuple[LatencySample, ...]:
    """The artifact's requests that count."""
    return tuple(samples_of(used_blocks(timing), "artifact"))


def drift(timing: Timing) -> Drift:
    """How the level of latency moved over the blocks that count, of the artifact and the reference together, each
    block's median as a multiple of the median of its model's.

    The trend is Theil and Sen's slope over time, its ``p`` Mann and Kendall's (Mann 1945, Econometrica 13:245). Blocks
    and not requests are what is compared: requests right after each other share whatever befell them.
    """
    blocks = used_blocks(timing)
    levels = [_level(block.samples) for block in blocks]
    typical = {of: statistics.median(level for level, b in zip(levels, blocks, strict=True) if b.of == of)
               for of in {block.of for block in blocks}}
    relative = [level / typical[block.of] for level, block in zip(levels, blocks, strict=True)]
    times = [block.at for block in blocks]
    if len(blocks) < 3:
        return Drift(0.0, 1.0)
    return Drift(trend.slope(times, relative) * (times[-1] - times[0]), trend.chance(relative))


def steadiness(timing: Timing) -> Steadiness:
    used, moved = used_blocks(timing), drift(timing)
    disturbed = [block for block in timing.blocks if block.disturbed]
    state: State = "steady"
    if any(block.disturbed for block in used):
        state = "disturbed"
    elif moved.real:
        state = "drifting"
    throttled = [block.throttled for block in used if block.throttled is not None]
    return Steadiness(
        state, statistics.mean(block.outside_cores + (block.steal or 0) for block in disturbed or timing.blocks),
        len(disturbed), len(timing.blocks), sum(map(bool, throttled)) if throttled else None, moved,
        next(w.requests for w in timing.warm_ups if w.of == "artifact"), all(w.flat for w in timing.warm_ups),
    )


def borne_out(
    low: float | None, high: float | None, found: Steadiness | None, direction: Direction
) -> tuple[float | None, float | None]:
    """The ends of an interval of times, or rates, that the machine bears out; ``found`` None is steady.

    Other processes can only slow requests down, so of a disturbed timing the slow end stands and the other is
    open: a limit that holds even so does hold. Where the level drifted, both ends move by as much as it did.
    """
    if found is None or found.state == "steady":
        return low, high
    if found.state == "disturbed":
        return (None, high) if direction == "minimize" else (low, None)
    share = abs(found.drift.change)
    return None if low is None else low * (1 - share), None if high is None else high * (1 + share)


def samples_of(blocks: Iterable[Block], of: Of) -> list[LatencySample]:
    return [sample for block in blocks if block.of == of for sample in block.samples]


def _level(samples: Sequence[LatencySample]) -> float:
    return statistics.median(sample.latency_ms for sample in samples)
