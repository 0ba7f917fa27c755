"""results.json (schema ``autotune/results@1``, beside this file) and trials.csv."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from autotune.constraints import Constraint
from autotune.pareto import feasible
from autotune.report.outcome import Outcome
from autotune.stats import Measurement
from autotune.storage.store import write_atomically
from autotune.trials import Screened, Screening, Timed, TrialRecord
from objectives.base import Objective
from search_spaces.deploy import DeployParams

SCHEMA = "autotune/results@1"


@dataclass(frozen=True)
class Context:
    """What does not change from trial to trial."""

    name: str
    config_sha256: str
    environment: Mapping[str, Any]
    objectives: Sequence[tuple[str, Objective]]
    measured: Mapping[str, Objective]
    constraints: Sequence[Constraint]
    dropped: Sequence[tuple[DeployParams, str]]
    screening: Screening | None = None
    deployment: Mapping[str, Any] | None = None


def results(
    context: Context, records: Sequence[TrialRecord], outcome: Outcome | None, artifacts: Mapping[int, str],
    baseline: Mapping[str, Any] | None, cost: Mapping[str, Any], ties: Mapping[int, int] | None = None,
    certificate: Mapping[str, Any] | None = None, repeats: Sequence[Mapping[str, Any]] = (),
    adapters: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The document. ``artifacts`` are folder names inside the run folder by trial number, ``ties`` the trials that
    cannot be told from a cheaper one, ``repeats`` what the best adapters scored with other training seeds,
    ``adapters`` what ``report.adapters`` tells of each.

    ``outcome`` is None for a study that ended before its first trial, as no deploy point can meet the limits.
    """
    return {
        "schema": SCHEMA,
        "study": {"name": context.name, "config_sha256": context.config_sha256},
        "environment": dict(context.environment),
        "objectives": [{"name": k, "direction": o.direction, "unit": o.unit} for k, o in context.objectives],
        "constraints": [
            {"expr": c.expr, "objective": c.objective, "op": c.op, "unit": context.measured[c.objective].unit,
             "bound": None if c.relative and c.baseline is None else c.bound, "baseline": c.baseline}
            for c in context.constraints
        ],
        "dropped": _dropped(context),
        "deploy_points": [_point(s) for s in context.screening.kept] if context.screening else [],
        "baseline": dict(baseline) if baseline else None,
        "adapters": list(adapters),
        "trials": [_trial(r, context, outcome, artifacts, ties or {}) for r in records],
        "front": list(outcome.front) if outcome else [],
        "selected": _selected(outcome, certificate),
        "certificate": certificate,
        "nearest_miss": _miss(context, outcome, certificate),
        "repeats": list(repeats),
        "cost": dict(cost),
        "deployment": dict(context.deployment) if context.deployment else None,
    }


def _dropped(context: Context) -> list[dict[str, Any]]:
    unsupported = [{"deploy": p.flat(), "label": p.label, "reason": reason, "values": {}}
                   for p, reason in context.dropped]
    found = context.screening.dropped if context.screening else ()
    return unsupported + [
        {"deploy": d.point.flat(), "label": d.point.label, "reason": d.reason,
         "values": _point(d.screened)["values"] if d.screened else {}}
        for d in found
    ]


def _point(screened: Screened) -> dict[str, Any]:
    return {"label": screened.point.label, "deploy": screened.point.flat(),
            "values": {key: value_json(m, "base") for key, m in screened.values.items()},
            "timing": timing_json(screened.timed),
            **({"devices": {name: {"timing": timing_json(timed)} for name, timed in screened.elsewhere.items()}}
               if screened.elsewhere else {})}


def timing_json(timed: Timed | None) -> dict[str, Any] | None:
    """How far a latency can be trusted; None where none was measured."""
    if timed is None:
        return None
    found = timed.steadiness
    return {
        "reference": timed.reference,
        "ratios": {key: interval_json(m) for key, m in timed.ratios.items()},
        "state": found.state, "sentence": found.sentence(), "outside_cores": found.outside_cores,
        "disturbed_blocks": found.disturbed_blocks, "blocks": found.blocks,
        "throttled_blocks": found.throttled_blocks, "drift": found.drift.change, "drift_p": found.drift.p,
        "warmup_requests": found.warmup_requests, "flat": found.flat,
    }


def _selected(outcome: Outcome | None, certificate: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The search's choice until there is a certificate, then the certificate's."""
    trial = certificate["trial"] if certificate else outcome.selected if outcome else None
    if outcome is None or trial is None:
        return None
    return {"trial": trial, "policy": outcome.policy, "certificate": certificate}


def _miss(
    context: Context, outcome: Outcome | None, certificate: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Of a trial, in the search or measured again; or of a deploy point, where not even the base model's artifact
    meets the limits."""
    if certificate is not None:
        found: dict[str, Any] | None = certificate["nearest_miss"]
        return found
    miss = outcome.miss if outcome else context.screening.miss if context.screening else None
    if miss is None:
        return None
    found = {"trial": miss.trial if outcome else None, "expr": miss.expr, "shortfall": miss.shortfall,
             "unit": context.measured[miss.objective].unit}
    if outcome is None and context.screening:
        found["deploy_point"] = context.screening.dropped[miss.trial].point.label
    return found


def _trial(
    record: TrialRecord, context: Context, outcome: Outcome | None, artifacts: Mapping[int, str],
    ties: Mapping[int, int],
) -> dict[str, Any]:
    assert outcome is not None
    complete = record.state == "COMPLETE"
    return {
        "number": record.number,
        "adapter": record.adapter_key,
        "state": record.state,
        "params": {**record.adapter.flat(), **record.deploy.flat()},
        "deploy_point": record.deploy.label,
        "values": {key: value_json(m, "base" if key in record.on_base else "artifact")
                   for key, m in record.values.items()},
        "feasible": feasible(record.candidate(), context.constraints) if complete else None,
        "verdicts": {
            c.expr: c.verdict(record.values[c.objective].low, record.values[c.objective].high)
            for c in context.constraints
        } if complete else {},
        "artifact": f"artifacts/{artifacts[record.number]}" if record.number in artifacts else None,
        "on_front": record.number in outcome.front,
        "tied_with": ties.get(record.number),
        "rungs": list(record.rungs),
        "stages": dict(record.stages),
        "reason": f"{record.failure[0]}: {record.failure[1]}" if record.failure else None,
    }


def value_json(m: Measurement, measured_on: str = "artifact", tier: str = "screen") -> dict[str, Any]:
    return {**interval_json(m), "measured_on": measured_on, "tier": tier}


def interval_json(m: Measurement) -> dict[str, Any]:
    return {"value": m.value, "low": m.low, "high": m.high, "n": m.n}


def write(folder: Path, document: Mapping[str, Any]) -> None:
    """results.json and trials.csv, each whole or not at all."""
    write_atomically(folder / "results.json", json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
    write_atomically(folder / "trials.csv", _csv(document))


def _csv(document: Mapping[str, Any]) -> str:
    import pandas as pd

    rows = [
        {"number": t["number"], "state": t["state"], "deploy_point": t["deploy_point"], **t["params"],
         **{key: value["value"] for key, value in t["values"].items()},
         "feasible": t["feasible"], "on_front": t["on_front"], "reason": t["reason"]}
        for t in document["trials"]
    ]
    return pd.DataFrame(rows).to_csv(index=False)


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every results.json holds to."""
    text = resources.files("autotune.report").joinpath("results.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
