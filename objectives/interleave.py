"""Times an artifact in blocks of a few requests, by turns with a reference where there is one.

The order is artifact, reference, reference, artifact, and so on: over such a round (ABBA) a machine that grows slower
evenly slows both alike, so their ratio holds where the level of neither does. In one round both are asked the same.
Within a block a request follows as soon as the last one is done (MLPerf Inference's single stream).

What lies beside a block is measured with it: the processor time that others took (`objectives.quiet`), never how long
its requests took. Where others took more than a limit, the block is disturbed and its round is made again, with the
same prompts, while the budget lasts: since the timings have no say in it, those that stay are not the fast ones.
A block lasts 0.2 s at least: long enough for counters that step by 10 ms to tell a busy machine from a quiet one.

Between blocks of different models two things keep them apart. ONNX Runtime's threads go on spinning for about 50 ms
after a request, on the cores that the other model needs, so they are waited for; and the first request after the other
model ran is slow, so it is not timed. (Gemma 3 270M at int8 and int4 on 2 cores: by 10 to 18 % without the wait, by 2
to 7 % with it; the second one is as the later ones.)
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import asdict

from objectives import quiet
from objectives.latency import LatencySample, time_request
from objectives.memory import peak_rss_mb
from objectives.models import Models, Of
from objectives.request import LatencyTask
from objectives.warmup import warm_up

_ABBA: tuple[Of, ...] = ("artifact", "reference", "reference", "artifact")
#: Requests and seconds that a block has at least, and rounds that a task has: enough to see a drift or to give
#: the ratio an interval, where more than a few samples are asked for.
_REQUESTS, _SECONDS = 2, 0.2
_BLOCKS_OF_ARTIFACT = 8
#: Rounds beyond which blocks grow longer instead, as each turn costs an untimed request, or opening a model anew.
_MOST_ROUNDS, _MOST_ROUNDS_REOPENING = 20, 4
#: Seconds beyond which a block grows no further, so that a disturbance costs no long one.
_LONGEST_S = 2.0
#: Untimed requests after the other model has run: they wake the threads and refill the caches.
_LEAD_IN = 1

Say = Callable[..., None]


class Interleaver:
    """One latency task. ``say`` emits an event of it, ``progress`` takes samples had and wanted."""

    def __init__(self, task: LatencyTask, models: Models, say: Say, progress: Callable[[int, int], None]) -> None:
        self._task, self._models, self._say, self._progress = task, models, say, progress
        self._now: Of | None = None
        self._began = 0.0
        self._blocks = itertools.count()
        self._requests: dict[Of, int] = {"artifact": _REQUESTS, "reference": _REQUESTS}
        self._longest = max(range(len(task.prompts)), key=lambda i: len(task.prompts[i]))

    def run(self) -> None:
        """At least one whole round; more until there are samples enough or the next would outlast the budget."""
        task = self._task
        deadline = time.monotonic() + task.max_seconds + task.sustain_seconds
        gc.freeze()  # what is here by now needs no looking through before every request
        pattern = _ABBA if task.reference else ("artifact",)
        self._requests = self._block_lengths(pattern, self._warm("artifact"))
        self._say("memory", peak_rss_mb=peak_rss_mb())  # the artifact's own: the reference is not open yet
        if task.reference and task.resident:
            self._warm("reference")
        self._sustain()
        per_round = pattern.count("artifact") * self._requests["artifact"]
        wanted = self._rounds(pattern)
        good, longest = 0, 0.0
        self._began = time.monotonic()
        for number in itertools.count():
            start = time.monotonic()
            good += self._round(number, pattern, first=good * per_round)
            self._progress(min(good * per_round, task.samples), task.samples)
            longest = max(longest, time.monotonic() - start)
            if good >= wanted or time.monotonic() + longest > deadline:
                return

    def _block_lengths(self, pattern: tuple[Of, ...], seconds: float) -> dict[Of, int]:
        """Requests of a block of each, the artifact's taking ``seconds``.

        The reference gets half as many where all requests are alike: its level is no result of its own.
        """
        task = self._task
        most = _MOST_ROUNDS if task.resident or not task.reference else _MOST_ROUNDS_REOPENING
        wanted = math.ceil(task.samples / (most * pattern.count("artifact")))
        own = max(_REQUESTS, math.ceil(_SECONDS / seconds), min(wanted, math.ceil(_LONGEST_S / seconds)))
        alike = task.ignore_eos and len({len(prompt) for prompt in task.prompts}) == 1
        return {"artifact": own, "reference": max(_REQUESTS, math.ceil(own / 2)) if alike else own}

    def _rounds(self, pattern: tuple[Of, ...]) -> int:
        """How many undisturbed rounds give the samples, and blocks enough to judge them by."""
        of_artifact, samples = pattern.count("artifact"), self._task.samples
        fewest = min(_BLOCKS_OF_ARTIFACT, math.ceil(samples / _REQUESTS))
        return max(math.ceil(samples / (of_artifact * self._requests["artifact"])), math.ceil(fewest / of_artifact))

    def _round(self, number: int, pattern: tuple[Of, ...], first: int) -> bool:
        """One round from prompt ``first`` on; True where no block of it was disturbed."""
        disturbed = False
        for place, of in enumerate(pattern):
            disturbed |= self._block(of, number, first + place // 2 * self._requests[of])
        return not disturbed

    def _block(self, of: Of, number: int, first: int) -> bool:
        """Time a block and emit it; True where it was disturbed. Nothing is emitted while it runs, as whoever reads
        the events would take part of the machine."""
        self._turn_to(of)
        at, start = time.monotonic() - self._began, quiet.counters()
        samples = [self._request(of, first + i) for i in range(self._requests[of])]
        load = quiet.between(start, quiet.counters())
        block = next(self._blocks)
        self._say(
            "block", block=block, of=of, round=number, at=at, seconds=load.seconds, requests=len(samples),
            outside_cores=load.outside_cores, steal=load.steal_cores, mhz=quiet.mhz(),
            temperature_c=quiet.temperature_c(), throttled=load.throttled, disturbed=load.disturbed,
        )
        for sample in samples:
            self._say("sample", of=of, block=block, **asdict(sample))
        return load.disturbed

    def _turn_to(self, of: Of) -> None:
        """Make ``of`` the one to be timed: the other's threads asleep, its own awake."""
        if of == self._now:
            return
        if not self._models.is_open(of):
            self._warm(of)
            return
        quiet.settle()
        for _ in range(_LEAD_IN):
            self._request(of, self._longest)
        self._now = of

    def _warm(self, of: Of) -> float:
        """Ask for the longest prompt until its time is flat; returns the seconds that a request then takes."""
        self._models.use(of)
        found = warm_up(lambda: self._request(of, self._longest).latency_ms)
        self._say("warmed", of=of, requests=found.requests, flat=found.flat)
        self._now = of
        return found.seconds

    def _sustain(self) -> None:
        until = time.monotonic() + self._task.sustain_seconds
        for i in itertools.count():
            if time.monotonic() >= until:
                return
            self._turn_to("artifact")
            self._request("artifact", i)

    def _request(self, of: Of, i: int) -> LatencySample:
        task = self._task
        return time_request(
            self._models.use(of), task.prompts[i % len(task.prompts)], task.new_tokens, ignore_eos=task.ignore_eos,
            stop_ids=task.stop_ids, min_generator_length=self._models.min_length(of),
        )
