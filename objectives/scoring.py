"""The choices of many prompts, in less time than one prompt at a time and with the very same labels.

Two ways are cheaper: prompts of equal length in one batch, and what all prompts begin with computed once.
Neither does quite the same arithmetic as a prompt alone (other kernels at other shapes, activations that round to
another int8), so neither may decide a close call: it decides a row only where, at every node of the trie on the
way, the best allowed logit leads the second by more than a tolerance. `objectives.accuracy.choose` answers the
other rows, one at a time.

The tolerance is measured on the artifact. A few rows, the shortest and the longest among them, are scored both
ways, and the largest difference of *any* logit of the vocabulary counts: a maximum over thousands of logits stands
for the handful that decide. Kernels may agree to the bit on those rows and differ at another length, so two of the
rows also show how far logits move when a kernel certainly changes: their last token appended by itself. `SAFETY`
times the larger of the two is the tolerance, at least `FLOOR`.

The same rows are timed, and a cheaper way that is not cheaper here is not taken: timings choose the way, no label.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from objectives.accuracy import Node, choose, depth, greedy
from objectives.agreement import Follower, Logits, Recorder, difference, lead
from objectives.walks import Pick, Rewinder, split_logits, walk_alone, walk_batch

Way = Literal["alone", "batch", "rewind"]

#: Two logits can move towards each other, each by as much as was seen.
SAFETY = 2.0
#: In logits; a smaller lead is a close call whatever was measured.
FLOOR = 1e-3

_SAMPLE = 8
#: With fewer prompts than this many samples, finding out costs more than it can bring.
_WORTH = 4
#: What all prompts begin with, as a share of their mean length, from which computing it once is tried.
_MIN_PREFIX = 0.2
#: The share of rows with another of their length in the same piece, from which batches are tried.
_MIN_COMPANY = 0.5
#: A cheaper way has to be expected to take at most this share of the time.
_QUICKER = 0.95
#: Batches gain no more beyond the first; the second keeps their activations small, the third their logits.
_MAX_ROWS, _MAX_TOKENS, _MAX_LOGITS_BYTES = 16, 2048, 256_000_000


@dataclass(frozen=True)
class Trial:
    """What the sample showed of one way: the largest difference of a logit from one at a time, that of the last
    token appended by itself, and the seconds a row is expected to take, rows answered again included."""

    difference: float
    moved: float
    tolerance: float
    seconds: float
    seconds_alone: float


class Scorer:
    """Answers the rows of one choice task.

    ``looks`` are the row counts, increasing, up to which rows are asked for together. ``force`` takes that way
    wherever it is possible, whatever the timings say.

    ``way`` is None until the first rows are answered. ``trials`` is what the sample showed; ``batches`` counts
    batches after it, ``quick`` and ``again`` the rows that the way decided and those that it left.
    """

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], trie: Node, min_length: int = 0,
        looks: Sequence[int] = (), force: Way | None = None,
    ) -> None:
        self.way: Way | None = None
        self.tolerance = float("inf")
        self.trials: dict[Way, Trial] = {}
        self.batches = self.quick = self.again = 0
        self._model, self._trie, self._min_length, self._force = model, trie, min_length, force
        self._prompts = [tuple(prompt) for prompt in prompts]
        bounds = (0, *looks, len(prompts))
        self._pieces = [range(a, b) for a, b in itertools.pairwise(bounds)]
        self._known: dict[int, int] = {}
        self._rewinder: Rewinder | None = None
        self._full_head, self._vocabulary = True, 0
        self._by_length = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))

    def answer_longest(self) -> None:
        """Answer the longest prompt alone and keep the answer: the memory that one at a time needs is used
        now, before any batch."""
        row = self._by_length[-1]
        self._known[row] = self._alone(row)

    def answer(self, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(row, label) of each of ``rows``, in some order, as soon as it is known.

        Raises FloatingPointError when an allowed logit is not a number.
        """
        if self.way is None:
            self.way = self._settle()
        yield from ((row, self._known[row]) for row in rows if row in self._known)
        for part in self._parts([row for row in rows if row not in self._known]):
            yield from zip(part, self._labels(part), strict=True)

    def _alone(self, row: int) -> int:
        return choose(self._model, self._prompts[row], self._trie, self._min_length)

    def _parts(self, rows: Sequence[int]) -> list[list[int]]:
        """What is answered together: rows of one length in lots of nearly equal size, or every row by itself."""
        if self.way != "batch":
            return [[row] for row in rows]
        lots = []
        for length, group in self._groups(rows).items():
            count = -(-len(group) // self._most_rows(length))
            lots += [group[i::count] for i in range(count)]
        return lots

    def _groups(self, rows: Sequence[int]) -> dict[int, list[int]]:
        groups: dict[int, list[int]] = defaultdict(list)
        for row in rows:
            groups[len(self._prompts[row])].append(row)
        return groups

    def _most_rows(self, length: int) -> int:
        logits = 4 * self._vocabulary * (length if self._full_head else 1)
        return max(1, min(_MAX_ROWS, _MAX_TOKENS // length, _MAX_LOGITS_BYTES // logits))

    def _labels(self, part: Sequence[int]) -> list[int]:
        found: list[int | None] = [None] * len(part)
        if self.way == "rewind" or (self.way == "batch" and len(part) > 1):
            try:
                found = self._walk(self.way, part, self._clear_lead)
                self.batches += len(part) > 1
                self.quick += len(part) - found.count(None)
                self.again += found.count(None)
            except (RuntimeError, MemoryError):
                self.way, self._rewinder = "alone", None
        return [self._alone(row) if label is None else label for row, label in zip(part, found, strict=True)]

    def _walk(self, way: Way, part: Sequence[int], pick: Pick) -> list[int | None]:
        prompts = [self._prompts[row] for row in part]
        if way == "batch":
            return walk_batch(self._model, part, prompts, self._trie, pick, self._min_length)
        if way == "rewind":
            if self._rewinder is None:
                longest = len(self._prompts[self._by_length[-1]])
                prefix = self._prompts[0][: self._prefix()]
                self._rewinder = Rewinder(self._model, prefix, longest + depth(self._trie))
            walked = zip(part, prompts, strict=True)
            return [self._rewinder.walk(row, prompt, self._trie, pick) for row, prompt in walked]
        walked = zip(part, prompts, strict=True)
        return [walk_alone(self._model, row, prompt, self._trie, pick, self._min_length) for row, prompt in walked]

    def _clear_lead(self, row: int, node: Node, logits: Logits) -> int | None:
        del row
        return greedy(node, logits) if lead(node, logits) > self.tolerance else None

    def _settle(self) -> Way:
        """Try the ways that may pay on a few rows, whose answers are kept, and take the best."""
        lengths = [len(prompt) for prompt in self._prompts]
        if self._trie.label is not None or len(lengths) < _WORTH * _SAMPLE or max(lengths) < 3:
            return "alone"
        samples = self._samples(lengths)
        alone = _TimedAlone(self._walk)
        try:
            moved = self._moved_by_splitting(alone) if samples else 0.0
        except RuntimeError:
            samples = {}
        for way, sample in samples.items():
            try:
                self.trials[way] = self._try(way, sample, alone, moved)
            except (RuntimeError, MemoryError):  # the runtime refuses this way for this model
                continue
        self._known |= alone.labels
        return self._best()

    def _samples(self, lengths: Sequence[int]) -> dict[Way, list[list[int]]]:
        """The ways that may pay, and the rows to try each on, in the parts that it takes together."""
        samples: dict[Way, list[list[int]]] = {}
        # A model that needs a generator of some length has a windowed cache, which forgets the beginning.
        if self._prefix() >= _MIN_PREFIX * np.mean(lengths) and self._min_length <= 1:
            spread = sorted(self._pieces[0], key=lambda row: lengths[row])
            picked = [spread[i] for i in np.linspace(0, len(spread) - 1, _SAMPLE - 2).round().astype(int)]
            rows = dict.fromkeys([self._by_length[-1], self._by_length[0], *picked])
            samples["rewind"] = [[row] for row in rows]
        if self._company() >= _MIN_COMPANY:
            samples["batch"] = self._batch_sample()
        return {way: sample for way, sample in samples.items() if self._force in (None, way)}

    def _try(self, way: Way, sample: Sequence[list[int]], alone: _TimedAlone, moved: float) -> Trial:
        """Score ``sample`` both ways. Raises RuntimeError where the runtime refuses."""
        follower = Follower(alone.recorder)
        rows, seconds, seconds_alone = [], 0.0, 0.0
        for i, part in enumerate(sample):
            by_themselves = sum(alone.seconds_for(row) for row in part)
            start = time.perf_counter()
            self._walk(way, part, follower)
            if i or len(sample) == 1:  # the first one warms up
                seconds += time.perf_counter() - start
                seconds_alone += by_themselves
                rows += part
                if not self._force and seconds >= _QUICKER * seconds_alone:
                    break  # it does not pay; finding out more would cost more
        worst = follower.furthest()
        tolerance = max(FLOOR, SAFETY * max(worst, moved))
        close = sum(not alone.recorder.smallest_lead[row] > tolerance for row in rows) / len(rows)
        per_row, per_row_alone = seconds / len(rows), seconds_alone / len(rows)
        expected = per_row + close * per_row_alone
        if way == "batch":
            expected += (1 - self._company()) * (per_row_alone - expected)
        return Trial(worst, moved, tolerance, expected, per_row_alone)

    def _best(self) -> Way:
        quickest = min(self.trials, key=lambda way: self.trials[way].seconds, default=None)
        if quickest is None:
            return "alone"
        trial = self.trials[quickest]
        if not self._force and not trial.seconds < _QUICKER * trial.seconds_alone:
            return "alone"
        self.tolerance = trial.tolerance
        return quickest

    def _prefix(self) -> int:
        """How many tokens all prompts begin with, at least one left to each."""
        first, last = min(self._prompts), max(self._prompts)  # in order, so all others lie between
        pairs = enumerate(zip(first, last, strict=False))
        shared = next((i for i, (a, b) in pairs if a != b), min(len(first), len(last)))
        return min(shared, len(self._prompts[self._by_length[0]]) - 1)

    def _company(self) -> float:
        alone = sum(len(group) == 1 for piece in self._pieces for group in self._groups(piece).values())
        return 1 - alone / len(self._prompts)

    def _batch_sample(self) -> list[list[int]]:
        """Rows of up to four lengths, the longest that has company first, then the shortest, up to four of each."""
        groups: dict[int, list[int]] = {}
        for piece in self._pieces:
            for length, group in self._groups(piece).items():
                if len(group) > len(groups.get(length, group[:1])):
                    groups[length] = group
        lengths = sorted(groups)
        chosen = dict.fromkeys(lengths[i] for i in np.linspace(len(lengths) - 1, 0, 4).round().astype(int))
        return [groups[length][:4] for length in chosen]

    def _moved_by_splitting(self, alone: _TimedAlone) -> float:
        """The largest difference of a logit when the last token is appended by itself, over two rows."""
        moved = 0.0
        for row in (self._by_length[-1], self._by_length[(len(self._by_length) - 1) // 2]):
            if len(self._prompts[row]) > 2:
                alone.seconds_for(row)
                logits, positions = split_logits(self._model, self._prompts[row], self._min_length)
                self._vocabulary, self._full_head = len(logits), positions > 1
                moved = max(moved, difference(alone.recorder.logits[row][0], logits))
        return moved


class _TimedAlone:
    """Rows of the sample one at a time, each once: seconds, labels and what was seen on the way."""

    def __init__(self, walk: Callable[[Way, Sequence[int], Pick], list[int | None]]) -> None:
        self.recorder = Recorder()
        self.labels: dict[int, int] = {}
        self._walk = walk
        self._seconds: dict[int, float] = {}

    def seconds_for(self, row: int) -> float:
        if row not in self._seconds:
            start = time.perf_counter()
            label = self._walk("alone", [row], self.recorder)[0]
            self._seconds[row] = time.perf_counter() - start
            if label is not None:
                self.labels[row] = label
        return self._seconds[row]
