"""The study's constraints as numbers: what a relative one comes to follows from the baseline, once it is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from autotune.constraints import Constraint, resolve_all
from autotune.pareto import Direction
from objectives.base import OBJECTIVES
from search_spaces.adapter import AdapterParams

BaselineModel = Literal["tuned", "base"]


class Limits:
    """Constraints that are resolved as far as the baseline is known.

    The baseline is a model at the highest precision on the same target: the untrained base, or of the adapters so
    far the one that is best there by ``key``. A better adapter moves the limits, so trials are judged anew each time.
    """

    def __init__(
        self, constraints: Sequence[Constraint], model: BaselineModel, key: str, direction: Direction
    ) -> None:
        self._constraints = tuple(constraints)
        self._model, self._key = model, key
        self._sign = 1 if direction == "maximize" else -1
        self._base: dict[str, float] = {}
        self._tuned: dict[str, float] = {}
        #: The adapter that is the baseline; None where the untrained base is, or no adapter was scored yet.
        self.adapter: AdapterParams | None = None

    @property
    def need_base(self) -> bool:
        """Whether the untrained base's own latency, memory or size has to be known before deploy points are judged."""
        return any(c.relative for c in self._constraints)

    @property
    def need_tuned(self) -> bool:
        """Whether each adapter has to be scored at the highest precision too."""
        return self._model == "tuned" and any(c.relative and is_answers(c.objective) for c in self._constraints)

    def learn_base(self, values: Mapping[str, float]) -> None:
        """What was measured on the untrained base; its answers count only where it is the baseline."""
        self._base |= {k: v for k, v in values.items() if self._model == "base" or not is_answers(k)}

    def learn_tuned(self, adapter: AdapterParams, values: Mapping[str, float]) -> None:
        """What was measured on an adapter at the highest precision."""
        if self.adapter is None or self._sign * values[self._key] > self._sign * self._tuned[self._key]:
            self.adapter, self._tuned = adapter, dict(values)

    def now(self) -> tuple[Constraint, ...]:
        """Every constraint whose bound is a number by now, in the study's order."""
        return resolve_all(self._constraints, self._base | self._tuned)

    def shown(self) -> tuple[Constraint, ...]:
        """All constraints for a reader; those without a number yet as they were written."""
        known = {c.expr: c for c in self.now()}
        return tuple(known.get(c.expr, c) for c in self._constraints)


def is_answers(key: str) -> bool:
    """Whether an objective is made of the model's answers, and so depends on its weights."""
    found = OBJECTIVES.get(key.partition(".")[0])
    return found is None or found.source == "predictions"
