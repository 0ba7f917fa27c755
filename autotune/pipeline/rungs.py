"""Training in rungs: at which steps an adapter pauses, and which adapters can. Known without any heavy import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.adapter import AdapterParams


@dataclass(frozen=True)
class RungJob:
    """An adapter to train to the step ``steps[rung]``, from the latest of the earlier ``steps`` that is there.

    ``steps`` never fall, and the last of them ends the training (``rung_steps`` gives them).
    """

    params: AdapterParams
    seed: int
    steps: tuple[int, ...]
    rung: int

    @property
    def step(self) -> int:
        return self.steps[self.rung]

    @property
    def earlier(self) -> tuple[int, ...]:
        """The steps that it may go on from, the latest first."""
        return tuple(step for step in self.steps[: self.rung][::-1] if step < self.step)

    @property
    def last(self) -> bool:
        """Whether the training ends here."""
        return self.step == self.steps[-1]


def rung_steps(params: AdapterParams, examples: int, fractions: Sequence[float]) -> tuple[int, ...]:
    """The step of each of ``fractions`` (rising, the last one 1) of the training on that many examples.

    One step or more for each, and never more than there are: of a short training several rungs may be one step.
    """
    total = params.training_steps(examples)
    return tuple(min(total, max(1, round(fraction * total))) for fraction in fractions)


def pausable(params: AdapterParams, config: Mapping[str, Any]) -> bool:
    """Whether an adapter on a base of this ``config.json`` can train beside others, pause, and be the same.

    Not with DoRA, whose magnitudes need W + BA of each adapter; nor on an int8 base, which rounds activations by
    what is in the whole batch; nor where the base itself drops activations out, by random numbers of its own.
    Such an adapter is trained in one go: its ``RungJob`` has one step.
    """
    own_dropout = any(
        name.endswith(("dropout", "pdrop")) and isinstance(value, float) and value > 0
        for name, value in config.items()
    )
    return params.variant != "dora" and params.base_precision != "int8" and not own_dropout
