"""Trials of a front whose better accuracy is not proven against a cheaper trial's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from autotune.paired import mcnemar
from autotune.pareto import dominates, losses
from autotune.predictions import load_right, path_of
from autotune.trials import TrialRecord
from objectives.base import Objective


def ties(
    rows: Mapping[int, Sequence[bool]], costs: Mapping[int, Sequence[float]], confidence: float
) -> dict[int, int]:
    """Trial → the cheapest trial that it is statistically tied with; trials without one are left out.

    Two trials are tied when McNemar's exact test on the same rows does not tell their accuracies apart at
    1 - ``confidence``. Cheaper means no worse in every cost and better in one. Where several are, the cheapest is the
    first by its costs in their order, then by number.

    A tie is the absence of proof, not proof of equality: with few rows much is tied. And each pair is tested by
    itself, so of k trials that are truly equal to a cheaper one each is marked with a probability of at least
    ``confidence``, not all k together.

    Args:
        rows: for each trial whether each row was answered right, [rows], the same rows in the same order.
        costs: for each of these trials the losses of its other objectives, less being better.

    Raises:
        ValueError: trials with different numbers of rows, or with none.
        KeyError: a trial has rows and no costs.
    """
    found = {}
    for trial, mine in rows.items():
        cheaper = [other for other in rows if dominates(costs[other], costs[trial])]
        tied = [other for other in cheaper if mcnemar(mine, rows[other], confidence).p_value > 1 - confidence]
        if tied:
            found[trial] = min(tied, key=lambda other: (tuple(costs[other]), other))
    return found


def front_ties(
    front: Sequence[TrialRecord], objectives: Sequence[tuple[str, Objective]], answers: Path, confidence: float
) -> dict[int, int]:
    """``ties`` among the trials of a front whose answers were kept in the folder ``answers``."""
    signed = [(key, o.direction) for key, o in objectives if o.source != "predictions"]
    files = {r.number: path_of(answers, r.number) for r in front}
    right = {number: load_right(file) for number, file in files.items() if file.exists()}
    costs = {r.number: losses({k: m.value for k, m in r.values.items()}, signed) for r in front}
    return ties(right, costs, confidence)
