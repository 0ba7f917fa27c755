"""What needs no more work, and the sentence that says why: adapters to stop, pairs to skip."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from autotune.search.rungs import AdapterState, Skip, Stop
from autotune.search.view import SURE, View

#: No adapter is stopped before so many were scored: until then forecasts rest on priors alone.
CALIBRATED = 2


def settled(view: View) -> Stop | Skip | None:
    """The first adapter that cannot reach the limits or the front within its uncertainty, or pair that cannot."""
    for adapter in view.alive:
        if adapter.number in view.training:
            continue
        if len(adapter.rungs) == len(view.plan.rungs):
            if view.plan.skips and (skipped := _skip(view, adapter)):
                return skipped
        elif adapter.rungs and len(view.finished) >= CALIBRATED and not view.chances(adapter.number).any():
            return Stop(adapter.number, _stop_reason(view, adapter))
    return None


def _skip(view: View, adapter: AdapterState) -> Skip | None:
    """An adapter that reached its last rung is scored once in any case, which tells what its rungs were worth."""
    if not any(o.values for o in adapter.scored.values()):
        return None
    chances = view.chances(adapter.number)
    for label in view.open_points(adapter.number):
        at = view.space.labels.index(label)
        if not chances[at]:
            if missed := _missed(view, label):
                return Skip(adapter.number, label, f"not scored: {missed}")
            scored = sum(bool(o.values) for o in adapter.scored.values())
            return Skip(adapter.number, label, f"not scored: after {scored} deploy point{'s' * (scored > 1)} "
                                               f"{_expected(view, adapter, at)}")
    return None


def _missed(view: View, label: str) -> str | None:
    """The limit that a deploy point itself misses by what was measured before any training: not so surely that it was
    dropped, or not on a machine at rest."""
    known, plan = view.plan.points[label], view.plan
    missed = (c for c in plan.constraints
              if c.objective in known and c.objective != plan.answers and not c.holds(known[c.objective]))
    return next((f"{label} has {c.objective} {known[c.objective]:.4g}, where {c.expr}" for c in missed), None)


def none_allowed(view: View) -> str | None:
    """The sentence that ends a search where no deploy point meets the limits by what was measured before any training,
    once an adapter was scored, which tells the nearest miss."""
    if view.space.allowed.any() or not view.finished:
        return None
    return f"no deploy point meets the limits by itself: {'; '.join(_missed(view, p) or p for p in view.space.labels)}"


def where_stopped(view: View, number: int) -> str:
    """The beginning of a reason: at which rung, and what was seen there at the point where it came nearest."""
    return _where(view, view.adapter(number), _nearest(view, view.adapter(number)))


def _nearest(view: View, adapter: AdapterState) -> int:
    found = view.forecast(adapter.number)
    gap = np.where(view.space.allowed & np.isfinite(view.needed), found.mean - view.needed, -np.inf)
    return int(np.argmax(gap))


def _stop_reason(view: View, adapter: AdapterState) -> str:
    at = _nearest(view, adapter)
    return f"{_where(view, adapter, at)}, {_expected(view, adapter, at)}"


def _where(view: View, adapter: AdapterState, at: int) -> str:
    rung, label = adapter.rungs[-1], view.space.labels[at]
    share = Fraction(rung.fraction).limit_denominator(100)
    if rung.right:
        label = label if label in rung.right else max(rung.right, key=lambda judged: rung.right[judged])
        evidence = f"{rung.right[label]} of {rung.rows} rows right as {label}"
    else:
        loss = rung.valid_loss
        evidence = f"validation loss {loss:.3f}" if loss is not None else "no finite validation loss"
    return f"stopped at {share} of its steps: {evidence}"


def _expected(view: View, adapter: AdapterState, at: int) -> str:
    found, sign = view.forecast(adapter.number), view.space.sign
    bound, needed = "most" if sign > 0 else "least", sign * float(view.needed[at])
    reach = sign * min(float(found.mean[at] + SURE * found.sd[at]), view.space.ceiling)
    label = view.space.labels[at]
    beaten = float(view.space.beaten(view.best)[at])
    why = (f"where the front has {needed:.3f} at no higher cost" if beaten >= view.space.floor or view.now <= 0
           else f"where {needed:.3f} is the limit")
    return f"at {bound} {reach:.3f} {view.plan.answers} is expected of {label}, {why}"
