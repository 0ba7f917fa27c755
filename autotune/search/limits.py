"""The study's constraints as numbers: what a relative one comes to follows from the baseline, once it is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from autotune.constraints import Constraint, resolve_all
from autotune.errors import ConfigError, Problem
from autotune.pareto import Direction
from objectives.base import is_answers, name_of
from objectives.latency import VALUES
from search_spaces.adapter import AdapterParams

BaselineModel = Literal["tuned", "base"]


class Limits:
    """Constraints that are resolved as far as the baseline is known.

    The baseline is a model at the highest precision on the same target: the untrained base, or of the adapters so
    far the one that is best there by ``key``. A better adapter moves the limits, so trials are judged anew each time.
    """

    def __init__(
        self, constraints: Sequence[Constraint], model: BaselineModel, key: str, direction: Direction,
        from_rows: bool = False,
    ) -> None:
        """``from_rows``: requests are the rows' own, so that latency is the adapter's too.

        Raises:
            ConfigError: a limit that is relative to times of the untrained base, which are not taken ``from_rows``.
        """
        self._constraints, self._from_rows = tuple(constraints), from_rows
        if model == "base" and (timed := [c.expr for c in constraints if c.relative and self._adapters(c.objective)
                                          and not is_answers(c.objective)]):
            raise ConfigError([Problem("study.yaml", "constraints", f"{timed[0]} with baseline: base and the rows' own "
                                       "prompts as the workload", "baseline: tuned, or a workload of fixed lengths")])
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
        return self._model == "tuned" and any(c.relative and self._adapters(c.objective) for c in self._constraints)

    def learn_base(self, values: Mapping[str, float]) -> None:
        """What was measured on the untrained base; its answers count only where it is the baseline."""
        self._base |= {k: v for k, v in values.items() if self._model == "base" or not self._adapters(k)}

    def learn_tuned(self, adapter: AdapterParams, values: Mapping[str, float]) -> None:
        """What was measured on an adapter at the highest precision."""
        if self.adapter is None or self._sign * values[self._key] > self._sign * self._tuned[self._key]:
            self.adapter, self._tuned = adapter, dict(values)

    def now(self) -> tuple[Constraint, ...]:
        """Every constraint whose bound is a number by now, in the study's order."""
        return resolve_all(self._constraints, self._base | self._tuned)

    def unresolved(self) -> str | None:
        """The first relative constraint without a number, as it was written; None where all have one."""
        known = {c.expr for c in self.now()}
        return next((c.expr for c in self._constraints if c.expr not in known), None)

    def shown(self) -> tuple[Constraint, ...]:
        """All constraints for a reader; those without a number yet as they were written."""
        known = {c.expr: c for c in self.now()}
        return tuple(known.get(c.expr, c) for c in self._constraints)


    def _adapters(self, key: str) -> bool:
        """Whether an objective's value is the adapter's, and not that of the deploy point alone."""
        return is_answers(key) or (self._from_rows and name_of(key) in VALUES)
