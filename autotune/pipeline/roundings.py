"""Which deploy points hold the same weights: known without any heavy import."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from search_spaces.deploy import DeployParams

#: Weights at full precision, whether or not there is such a deploy point.
FULL = DeployParams("fp32")


def rounding(params: DeployParams) -> DeployParams:
    """The point that stands for all whose weights are rounded like this one's: how they compute is left out.

    fp16 keeps 11 bits of each weight, which moves no answer worth asking again for: it counts as full precision.
    """
    if params.precision == "fp16":
        return FULL
    return replace(params, accuracy_level=FULL.accuracy_level, prune_head=FULL.prune_head)


def roundings(points: Iterable[DeployParams]) -> dict[DeployParams, DeployParams]:
    """Each rounding but ``FULL`` → the first of the points that has it, in the order of their labels."""
    found: dict[DeployParams, DeployParams] = {}
    for point in sorted(points, key=lambda p: p.label):
        found.setdefault(rounding(point), point)
    found.pop(FULL, None)
    return found
