"""A comparison of runs as JSON: ``autotune/comparison@1``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from autotune.comparing.comparison import Best, Comparison, Entrant
from autotune.comparing.stretches import Stretch
from autotune.comparing.study_differences import Difference
from autotune.finished import FinishedTrial, unit_of
from autotune.report.results import interval_json

SCHEMA = "autotune/comparison@1"


def as_json(found: Comparison) -> dict[str, Any]:
    """Everything that is compared; runs are named by their labels, in the order in which they were given."""
    units = found.entrants[0].run.units
    ground = found.covered
    return {
        "schema": SCHEMA,
        "warnings": list(found.warnings),
        "runs": [_run(e, found, ground.volumes[i], ground.dominated[i]) for i, e in enumerate(found.entrants)],
        "objectives": [{"name": k, "direction": d, "unit": unit_of(k, units)} for k, d in found.objectives],
        "objectives_left_out": list(found.left_out),
        "differences": {"study": _differences(found.study, found.labels),
                        "environment": _differences(found.environment, found.labels)},
        "hypervolume": {
            "reference": [asdict(r) for r in ground.reference],
            "unit": "share of the box from the best value of each objective on all fronts to the reference",
            "together": ground.together,
        },
        "coverage": {mine: dict(zip(found.labels, row, strict=True))
                     for mine, row in zip(found.labels, ground.coverage, strict=True)},
        "best_within": {cost: [_stretch(s, found.labels) for s in stretches]
                        for cost, stretches in found.stretches.items()},
        "policies": [_best(best, found.labels) for best in found.best],
    }


def _differences(found: Sequence[Difference], labels: Sequence[str]) -> list[dict[str, Any]]:
    return [{"where": d.where, "values": dict(zip(labels, d.values, strict=True))} for d in found]


def _run(entrant: Entrant, found: Comparison, volume: float, dominated: Sequence[int]) -> dict[str, Any]:
    run = entrant.run
    return {
        "label": entrant.label, "folder": str(run.root), "study": run.name,
        "limits": [{"expr": c.expr, "bound": c.bound} for c in run.constraints],
        "trials": trials_by_state(entrant), "feasible": entrant.feasible,
        "front": [{"trial": t.number, "deploy_point": t.deploy_point, "params": dict(t.params),
                   "values": {key: interval_json(t.values[key]) for key, _ in found.objectives}}
                  for t in entrant.front],
        "dominated": list(dominated), "hypervolume": volume, "cost": dict(run.document["cost"]),
        "certificate": {"trial": run.certificate["trial"], "verdict": run.certificate["verdict"]}
        if run.certificate else None,
    }


def trials_by_state(entrant: Entrant) -> dict[str, int]:
    states = [t.state for t in entrant.run.trials]
    return {state: states.count(state) for state in ("COMPLETE", "PRUNED", "FAILED", "RUNNING") if state in states}


def _stretch(stretch: Stretch, labels: Sequence[str]) -> dict[str, Any]:
    def numbers(best: Sequence[FinishedTrial | None]) -> dict[str, int | None]:
        return {label: t.number if t else None for label, t in zip(labels, best, strict=True)}

    return {"from": stretch.start, "to": stretch.end, "best": [labels[i] for i in stretch.leaders],
            "settled": stretch.settled, "trials_at_start": numbers(stretch.first),
            "trials_at_end": numbers(stretch.last)}


def _best(best: Best, labels: Sequence[str]) -> dict[str, Any]:
    return {"policy": best.policy, "picks": {
        label: None if pick is None else {
            "trial": pick.number, "deploy_point": pick.deploy_point,
            "differences_to_first": {key: asdict(c) for key, c in contrasts.items()}}
        for label, pick, contrasts in zip(labels, best.picks, best.contrasts, strict=True)}}
