"""The choices of many prompts, in less time than one prompt at a time and with the very same labels.

Two ways are cheaper: prompts of equal length in one batch, and what all prompts begin with computed once. Either
may do other arithmetic than a prompt alone: other kernels, other orders of summation. Where activations are
rounded to int8, what that does cannot be bounded from a few rows: most move in the seventh digit, and now and then
one rounds to another int8 and its logits move ten thousand times as far. But which kernels run depends on shapes,
not on values. So a way is trusted shape by shape. The first row of each is scored both ways, and only if every
logit of the whole vocabulary agrees *to the bit*, at every node on its way through the trie, does the way decide
rows of that shape, as deep into the trie as was seen to agree. A shape that differs is answered alone.

That is evidence, not proof: a small quantized model can round a difference away, and agree by chance. So a choice
whose best allowed logit leads the second by no more than `CLOSE` is left as well. `objectives.accuracy.choose`
answers whatever is left, one row at a time.

The first rows are timed both ways, and a way that is not quicker here is not taken: timings choose the way, no label.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from objectives.accuracy import Node, choose, depth
from objectives.agreement import Careful, Recorder
from objectives.walks import Pick, Rewinder, head_shape, walk_alone, walk_batch

Way = Literal["alone", "batch", "rewind"]
#: What decides which kernels run: the way, the tokens of a prompt, the rows of a batch.
Shape = tuple[Way, int, int]

#: In logits: twice what one activation that rounds to another int8 has been seen to move a model of two layers,
#: and a fiftieth of the median lead of a small model on its task.
CLOSE = 0.05

#: Rows of one shape that are scored both ways, at most, to see agreement down to the last level of the trie.
_CHECKS = 2
#: Parts that a way is tried on, and the rows from which trying is worth it.
_TRIED, _WORTH = 4, 32
#: What all prompts begin with, as a share of their mean length, from which computing it once is tried.
_MIN_PREFIX = 0.2
#: The share of rows with another of their length in the same piece, from which batches are tried.
_MIN_COMPANY = 0.5
#: A cheaper way has to be expected to take less than this share of the time.
_QUICKER = 0.95
#: Batches gain no more beyond the first; the second keeps their activations small, the third their logits.
_MAX_ROWS, _MAX_TOKENS, _MAX_LOGITS_BYTES = 16, 2048, 256_000_000


@dataclass(frozen=True)
class Check:
    """One part of the rows, its first row scored both ways: the seconds of that row alone and, each, of the part's
    rows; whether its logits agree; and their largest difference."""

    seconds_alone: float
    seconds: float
    agrees: bool
    difference: float


class Scorer:
    """Answers the rows of one choice task.

    ``looks`` are the row counts, increasing, up to which rows are asked for together. ``force`` takes that way
    wherever it is possible, whatever the timings say.

    ``way`` is None until the first rows are answered. ``checks`` are by way; ``trusted`` gives for a shape down to
    which level of the trie it agrees, 0 where it does not. ``batches`` counts batches, ``quick`` and ``left`` the
    rows that a cheaper way decided and those that it left, checked ones apart.
    """

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], trie: Node, min_length: int = 0,
        looks: Sequence[int] = (), force: Way | None = None,
    ) -> None:
        self.way: Way | None = None
        self.checks: dict[Way, list[Check]] = defaultdict(list)
        self.trusted: dict[Shape, int] = {}
        self.batches = self.quick = self.left = 0
        self._model, self._trie, self._min_length, self._force = model, trie, min_length, force
        self._prompts = [tuple(prompt) for prompt in prompts]
        self._pieces = [range(a, b) for a, b in itertools.pairwise((0, *looks, len(prompts)))]
        self._checked: dict[Shape, int] = defaultdict(int)
        self._known: dict[int, int] = {}
        self._rewinder: Rewinder | None = None
        self._vocabulary, self._full_head = 1, True
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
        yield from [(row, self._known[row]) for row in rows if row in self._known]
        for part in self._parts(self.way, [row for row in rows if row not in self._known]):
            yield from self._labels(self.way, part).items()

    def _alone(self, row: int) -> int:
        return choose(self._model, self._prompts[row], self._trie, self._min_length)

    def _parts(self, way: Way, rows: Sequence[int]) -> list[list[int]]:
        """What is answered together: rows of one length in lots of nearly equal size, or every row by itself."""
        if way != "batch":
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

    def _labels(self, way: Way, part: Sequence[int]) -> dict[int, int]:
        """The label of each row of a part; the rows that ``way`` does not decide are answered alone."""
        shape = (way, self._length(part), len(part))
        found: dict[int, int] = {}
        if (way == "rewind" or (way == "batch" and len(part) > 1)) and self.way != "alone":
            try:
                if shape not in self.trusted or (
                    0 < self.trusted[shape] < depth(self._trie) and self._checked[shape] < _CHECKS
                ):
                    found = self._check(way, part, shape)
                elif self.trusted[shape]:
                    found = self._decided(way, part, shape, Careful(CLOSE, {}))
            except (RuntimeError, MemoryError):  # the runtime refuses
                self.way, self._rewinder = "alone", None
        return {row: found[row] if row in found else self._alone(row) for row in part}

    def _check(self, way: Way, part: Sequence[int], shape: Shape) -> dict[int, int]:
        """The part's first row alone and by ``way``; where they agree, the others with it."""
        first = part[0]
        guide, start = Recorder(), time.perf_counter()
        label = self._walk("alone", [first], guide)[0]
        careful, middle = Careful(CLOSE, {first: guide}), time.perf_counter()
        assert label is not None  # a recorder leaves no row
        walked = self._walk(way, part, careful)
        seconds = (time.perf_counter() - middle) / len(part)
        agreed, whole = careful.agreed(first), careful.agreed(first) == len(guide.tokens)
        before = self.trusted.get(shape, 0)
        self.trusted[shape] = max(before, agreed) if whole else min(before or agreed, agreed)
        self._checked[shape] += 1 if whole else _CHECKS
        self.checks[way].append(Check(middle - start, seconds, whole, careful.difference))
        return {**self._accepted(part[1:], walked[1:], shape, careful), first: label}

    def _decided(self, way: Way, part: Sequence[int], shape: Shape, careful: Careful) -> dict[int, int]:
        return self._accepted(part, self._walk(way, part, careful), shape, careful)

    def _accepted(
        self, rows: Sequence[int], labels: Sequence[int | None], shape: Shape, careful: Careful
    ) -> dict[int, int]:
        """Of what was walked, the clear choices no deeper than where the shape is trusted."""
        pairs = zip(rows, labels, strict=True)
        found = {
            row: label for row, label in pairs
            if label is not None and careful.levels[row] <= self.trusted[shape]
        }
        self.quick += len(found)
        self.left += len(rows) - len(found)
        return found

    def _walk(self, way: Way, part: Sequence[int], pick: Pick) -> list[int | None]:
        prompts = [self._prompts[row] for row in part]
        if way == "batch":
            self.batches += 1
            return walk_batch(self._model, part, prompts, self._trie, pick, self._min_length)
        if way == "alone":
            return [walk_alone(self._model, part[0], prompts[0], self._trie, pick, self._min_length)]
        if self._rewinder is None:
            longest = len(self._prompts[self._by_length[-1]])
            prefix = self._prompts[0][: self._prefix()]
            self._rewinder = Rewinder(self._model, prefix, longest + depth(self._trie))
        return [self._rewinder.walk(part[0], prompts[0], self._trie, pick)]

    def _settle(self) -> Way:
        """Try the ways that may pay on a few parts, whose answers are kept, and take the first that does."""
        if self._trie.label is not None or len(self._prompts) < _WORTH or self._force == "alone":
            return "alone"
        for way, sample in self._samples().items():
            self.way = way
            for part in sample:
                self._known |= self._labels(way, part)
            refused = self.way != way
            if not refused and (self._force or self._expected_share(way) < _QUICKER):
                return way
        return "alone"

    def _samples(self) -> dict[Way, list[list[int]]]:
        """The ways that may pay, the one that can save most first, and parts of several lengths, the longest first,
        to try each on."""
        samples: dict[Way, list[list[int]]] = {}
        mean_length = sum(map(len, self._prompts)) / len(self._prompts)
        # A model that needs a generator of some length has a windowed cache, which forgets the beginning.
        if self._prefix() >= _MIN_PREFIX * mean_length and self._min_length <= 1:
            samples["rewind"] = _spread([[row] for row in self._by_length])
        if self._company() >= _MIN_COMPANY:
            try:
                self._vocabulary, self._full_head = head_shape(self._model, self._prompts[self._by_length[0]],
                                                               self._min_length)
            except RuntimeError:
                return samples
            lots = sorted(self._lots(self._pieces[:1]) or self._lots(self._pieces), key=self._length)
            if lots:
                samples["batch"] = _spread(lots)
        return {way: sample for way, sample in samples.items() if self._force in (None, way)}

    def _lots(self, pieces: Sequence[range]) -> list[list[int]]:
        return [lot for piece in pieces for lot in self._parts("batch", piece) if len(lot) > 1]

    def _length(self, part: Sequence[int]) -> int:
        return len(self._prompts[part[0]])

    def _expected_share(self, way: Way) -> float:
        """The time that ``way`` is expected to take for all rows, as a share of that of one at a time."""
        checks = self.checks[way][1:] or self.checks[way]  # the first warmed up
        alone = sum(check.seconds_alone for check in checks) / len(checks)
        quick = sum(check.seconds for check in checks) / len(checks) / alone
        agreeing = sum(check.agrees for check in checks) / len(checks)
        rows = len(self._prompts)
        if way == "rewind":
            shapes, walked = len(self._groups(range(rows))), rows
        else:
            lots = self._lots(self._pieces)
            shapes, walked = len({(self._length(lot), len(lot)) for lot in lots}), sum(map(len, lots))
        return ((agreeing * quick + 1 - agreeing) * walked + (rows - walked) + shapes) / rows

    def _prefix(self) -> int:
        """How many tokens all prompts begin with, at least one left to each."""
        first, last = min(self._prompts), max(self._prompts)  # in order, so all others lie between
        pairs = enumerate(zip(first, last, strict=False))
        shared = next((i for i, (a, b) in pairs if a != b), min(len(first), len(last)))
        return min(shared, len(self._prompts[self._by_length[0]]) - 1)

    def _company(self) -> float:
        lonely = sum(len(group) == 1 for piece in self._pieces for group in self._groups(piece).values())
        return 1 - lonely / len(self._prompts)


def _spread(parts: Sequence[list[int]]) -> list[list[int]]:
    """A few of ``parts``, from the last to the first."""
    places = np.linspace(len(parts) - 1, 0, min(_TRIED, len(parts))).round().astype(int)
    return [parts[i] for i in dict.fromkeys(places.tolist())]
