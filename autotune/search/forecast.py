"""What an adapter will score at its last rung, told from the rungs so far, with its uncertainty.

A learning curve's end is extrapolated by Bayesian linear regression (Bishop 2006, Pattern Recognition and Machine
Learning, section 3.3) instead of a parametric curve (Domhan, Springenberg & Hutter 2015, IJCAI): two or three rungs
bear no curve of four parameters, and finished adapters of the same study tell better than any shape how much is still
gained. For each rung, what an artifact scored is explained by what was judged there: the mean of all adapters judged
at that rung, plus a gain, plus a share of what this adapter was above the mean in accuracy and below it in loss. A
share below 1 is needed: 64 rows make an accuracy uncertain by 0.06 (binomial), so the best of many were lucky, and
slow starters catch up.

Before an adapter has finished the priors below speak alone. Each finished one then moves gain, shares and spread; the
spread of what was left unexplained holds the judged rows' noise and that of the gains alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.search.rungs import AdapterState, Plan, Rung

Array = NDArray[Any]

#: Of the wrong answers at a rung, the share that training's remaining part is expected to right, per remaining part.
_GAIN = 0.25
_GAIN_SD = 0.06
#: What carries over to the end of one more right answer in a hundred, and of one nat less of loss.
_SHARE, _SHARE_SD = 0.6, 0.25
_LOSS_SHARE, _LOSS_SHARE_SD = 0.05, 0.1
#: Further above the middle than this a rung tells no more, as differences among the good ones are small at the end.
#: What lies further below is taken at its word, but has no part in the fit: it would tilt the line.
_FAR, _LOSS_FAR = 0.1, 0.2
#: Unexplained rest: its prior size, beside the judged rows' noise, and how many finished adapters that counts for.
_SPREAD, _SPREAD_COUNT = 0.03, 3.0
#: Adapters differ by so much at the end, before any tells otherwise.
_BETWEEN, _BETWEEN_COUNT = 0.08, 3.0
#: What a deploy point's artifact loses beyond what was judged is learned as if so many adapters had shown no loss;
#: where its rounding was not judged at all, the loss is uncertain by so much before it was seen.
_LOSS_COUNT, _UNJUDGED_SD = 2.0, 0.03
#: How far an adapter's surprises at two deploy points go together: where both round to 4 bits, or both to more, and
#: where one does and the other does not. (0.93, 0.5 to 0.9 and 0 to 0.8 in the table of benchmarks/replay.)
_ALIKE, _ACROSS = 0.85, 0.5
_COARSE = "int4"
#: Level and uncertainty where nothing at all is known, as for an accuracy.
_UNKNOWN, _UNKNOWN_SD = 0.5, 0.25


@dataclass(frozen=True)
class Forecast:
    """Expected values at the last rung and their standard deviations, [points]; measured ones have 0."""

    mean: Array
    sd: Array


@dataclass(frozen=True)
class _Line:
    """A regression's answer: coefficients, their covariance, the rest's variance, and what each point adds [points]."""

    weights: Array
    covariance: Array
    rest: float
    offsets: Array


class Forecasts:
    """Forecasts for every adapter of a state, and for one that is still to be proposed."""

    def __init__(self, adapters: Sequence[AdapterState], plan: Plan, sign: int = 1) -> None:
        """``sign`` is -1 where less of what the adapter decides is better; forecasts are signed."""
        self._labels, self._plan, self._sign = tuple(plan.points), plan, sign
        self._adapters = adapters
        self._final = {a.number: self._scores(a) for a in adapters}
        coarse = np.array([label.startswith(_COARSE) for label in self._labels])
        self._together = np.where(coarse[:, None] == coarse, _ALIKE, _ACROSS)
        np.fill_diagonal(self._together, 1.0)
        self._level = self._levels()
        fractions = {r.fraction for a in adapters for r in a.rungs if judged(r)}
        self._centre = {f: self._centre_at(f) for f in fractions}
        self._line = {f: self._fit(f) for f in fractions}
        self._found = {a.number: self._of(a) for a in adapters}

    def of(self, number: int) -> Forecast:
        return self._found[number]

    def scores(self, number: int) -> Array:
        """What was measured, signed, [points]; NaN elsewhere."""
        return self._final[number]

    def new(self) -> Forecast:
        """For an adapter of which nothing is known: as those so far, each by its forecast."""
        known = [self._found[a.number] for a in self._adapters if a.rungs or self._measured(a)]
        if not known:
            return Forecast(self._level, np.full(len(self._labels), _UNKNOWN_SD))
        means, n = np.array([f.mean for f in known]), len(known)
        # Forecasts lie closer together than what they forecast: their own uncertainty is the rest of the variance.
        variance = means.var(axis=0) + np.mean([f.sd**2 for f in known], axis=0)
        between = (_BETWEEN_COUNT * _BETWEEN**2 + n * variance) / (_BETWEEN_COUNT + n)
        return Forecast(means.mean(axis=0), np.sqrt(between))

    def _measured(self, adapter: AdapterState) -> bool:
        return not bool(np.isnan(self._final[adapter.number]).all())

    def _scores(self, adapter: AdapterState) -> Array:
        key = self._plan.answers
        return np.array([
            self._sign * o.values[key] if (o := adapter.scored.get(label)) and key in o.values else np.nan
            for label in self._labels
        ])

    def _levels(self) -> Array:
        """The mean final value at each point, [points]; where a point has none, that of all."""
        rows = np.array(list(self._final.values())).reshape(-1, len(self._labels))
        counts = (~np.isnan(rows)).sum(axis=0)
        if not counts.sum():
            return np.full(len(self._labels), self._sign * _UNKNOWN)
        return np.asarray(np.where(counts > 0, np.nansum(rows, axis=0) / np.maximum(counts, 1), np.nanmean(rows)))

    def _shares(self, rung: Rung) -> Array:
        """Judged accuracy, signed, [points]; a point without a judgement has the mean of the others."""
        if not rung.right:
            return np.full(len(self._labels), np.nan)
        mean = sum(rung.right.values()) / len(rung.right)
        return np.array([self._sign * rung.right.get(label, mean) / rung.rows for label in self._labels])

    def _centre_at(self, fraction: float) -> tuple[Array, float]:
        """What the adapter in the middle of those judged at a rung had: accuracies [points], loss."""
        rungs = [r for a in self._adapters for r in a.rungs if r.fraction == fraction and judged(r)]
        shares = [self._shares(r) for r in rungs if r.right]
        losses = [_bounded(r.valid_loss) for r in rungs if r.valid_loss is not None]
        level = np.median(shares, axis=0) if shares else self._level
        return level, float(np.median(losses)) if losses else 0.0

    def _features(self, rung: Rung) -> tuple[Array, Array]:
        """[points, 3]: 1, accuracy above the middle, loss below the middle; as they are below, and within bounds."""
        level, loss = self._centre[rung.fraction]
        above = self._shares(rung) - level if rung.right else np.zeros(len(self._labels))
        below = loss - _bounded(rung.valid_loss) if rung.valid_loss is not None else 0.0
        found = []
        for far, loss_far in ((1.0, 1.0), (_FAR, _LOSS_FAR)):
            better = self._sign * float(np.clip(below, -loss_far, _LOSS_FAR))
            columns = [np.ones(len(above)), np.clip(above, -far, _FAR), np.full(len(above), better)]
            found.append(np.stack(columns, axis=1))
        return found[0], found[1]

    def _fit(self, fraction: float) -> _Line:
        """The regression of this rung; an adapter counts as one observation, however many points it has."""
        level, _ = self._centre[fraction]
        noise = self._noise(fraction)
        accuracy = float(np.clip(np.mean(level) * self._sign, 0.05, 0.95))
        gained = self._sign * _GAIN * (1 - fraction) * (1 - accuracy) if noise else 0.0
        prior = np.array([gained, _SHARE if noise else 0.0, _LOSS_SHARE if noise else 2 * _LOSS_SHARE])
        precision = np.diag(1 / np.array([_GAIN_SD, _SHARE_SD, _LOSS_SHARE_SD]) ** 2)
        rows, targets, weights, points = self._observations(fraction, level)
        rest = _SPREAD**2 + noise if noise else _BETWEEN**2
        answer = _Line(prior, np.linalg.inv(precision), rest, np.zeros(len(self._labels)))
        if not len(targets):
            return answer
        offsets = self._offsets(rows, targets, weights, points, prior)
        targets = targets - offsets[points]
        start = rest
        for _ in range(3):  # the rest's size and the coefficients depend on each other
            scaled = rows * (weights / rest)[:, None]
            covariance = np.linalg.inv(precision + scaled.T @ rows)
            mean = covariance @ (precision @ prior + scaled.T @ targets)
            left = float(weights @ (targets - rows @ mean) ** 2)
            rest = (_SPREAD_COUNT * start + left) / (_SPREAD_COUNT + float(weights.sum()))
            answer = _Line(mean, covariance, rest, offsets)
        return answer

    def _offsets(self, rows: Array, targets: Array, weights: Array, points: Array, prior: Array) -> Array:
        """What each point's artifacts scored above what was judged, beside the other points of the same adapters."""
        above, start = targets - rows @ prior, 0
        while start < len(above):
            end = start + round(1 / weights[start])  # the observations of one adapter
            above[start:end] -= above[start:end].mean()
            start = end
        count = np.bincount(points, minlength=len(self._labels))
        return np.bincount(points, above, minlength=len(self._labels)) / (count + _LOSS_COUNT)

    def _noise(self, fraction: float) -> float:
        """The binomial variance of a judged accuracy at this rung; 0 where none was judged."""
        rungs = [r for a in self._adapters for r in a.rungs if r.fraction == fraction and r.right]
        if not rungs:
            return 0.0
        share = sum(sum(r.right.values()) / len(r.right) / r.rows for r in rungs) / len(rungs)
        return max(share * (1 - share), 0.05) / rungs[0].rows

    def _observations(self, fraction: float, level: Array) -> tuple[Array, Array, Array, Array]:
        """Features [n, 3], what was scored above the rung's mean [n], weights [n], indices of points [n]."""
        rows, targets, weights, points = [], [], [], []
        for adapter in self._adapters:
            rung = next((r for r in adapter.rungs if r.fraction == fraction and judged(r)), None)
            have = ~np.isnan(self._final[adapter.number])
            if rung is None or not have.any():
                continue
            rows.append(self._features(rung)[1][have])
            targets.append((self._final[adapter.number] - level)[have])
            weights.append(np.full(have.sum(), 1 / have.sum()))
            points.append(np.flatnonzero(have))
        if not rows:
            return np.zeros((0, 3)), np.zeros(0), np.zeros(0), np.zeros(0, int)
        return np.concatenate(rows), np.concatenate(targets), np.concatenate(weights), np.concatenate(points)

    def _of(self, adapter: AdapterState) -> Forecast:
        rung = next((r for r in reversed(adapter.rungs) if judged(r)), None)
        if rung is None:
            mean, variance = self._level.copy(), np.full(len(self._labels), _BETWEEN**2)
            if not self._any_final():
                variance[:] = _UNKNOWN_SD**2
        else:
            line, (features, bounded) = self._line[rung.fraction], self._features(rung)
            mean = self._centre[rung.fraction][0] + features @ line.weights + line.offsets
            variance = line.rest + np.einsum("pi,ij,pj->p", bounded, line.covariance, bounded)
            if rung.right:
                variance += [0.0 if label in rung.right else _UNJUDGED_SD**2 for label in self._labels]
        return self._with_scores(mean, variance, self._final[adapter.number])

    def _any_final(self) -> bool:
        return any(not np.isnan(f).all() for f in self._final.values())

    def _with_scores(self, mean: Array, variance: Array, scores: Array) -> Forecast:
        """What was measured at some points moves the others: surprises are correlated normal variables, conditioned on
        those seen."""
        have = ~np.isnan(scores)
        if have.any():
            spread = np.sqrt(variance)
            pull = np.linalg.solve(self._together[np.ix_(have, have)], self._together[have])
            mean = mean + spread * (((scores - mean)[have] / spread[have]) @ pull)
            variance = variance * np.maximum(0.0, 1 - (self._together[have] * pull).sum(axis=0))
        return Forecast(np.where(have, scores, mean), np.where(have, 0.0, np.sqrt(variance)))


def judged(rung: Rung) -> bool:
    """Whether a rung tells something of an adapter's answers."""
    return bool(rung.right) or (rung.valid_loss is not None and rung.fraction < 1)


def _bounded(loss: float | None) -> float:
    """A loss that one diverging adapter cannot drag the others' mean away with."""
    return min(loss, 10.0) if loss is not None and math.isfinite(loss) else 10.0

