"""Runs for tests of reports: certified, hostile, large, and with Optuna's record beside them."""

from __future__ import annotations

import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tests import finished_runs

#: Text that must stay text wherever a name, a label or a reason goes.
HOSTILE = "</script><img src=x onerror=alert(1)>"


def held(expr: str, verdict: str, value: float, low: float | None, high: float | None, n: int, bound: float,
         **changes: Any) -> dict[str, Any]:
    """A constraint as a certificate judged it."""
    return {"expr": expr, "verdict": verdict, "compared": expr.split()[0], "bound": bound, "unit": "", "value": value,
            "low": low, "high": high, "n": n, "doubt": None, "n_to_settle": None, **changes}


def look(trial: int, verdict: str, *constraints: dict[str, Any], **changes: Any) -> dict[str, Any]:
    values = {"accuracy": finished_runs.value(0.69, 0.06, 320), "latency_ms.p50": finished_runs.value(228, 11, 140),
              "latency_ms.p95": finished_runs.value(274, 20, 140), "size_mb": finished_runs.value(211)}
    return {"trial": trial, "verdict": verdict, "confidence": 0.975, "problem": None,
            "values": {k: {**v, "tier": "certify"} for k, v in values.items()}, "constraints": list(constraints),
            "timing": {"sentence": "others took 0.02 cores in 140 blocks, and no drift"},
            "logits": {"relative": 0.02, "top1_agree": 8, "n": 8}, **changes}


def certificate(verdict: str, trial: int | None, *looks: dict[str, Any], text: tuple[str, ...] = ("Told.",)
                ) -> dict[str, Any]:
    return {"verdict": verdict, "trial": trial, "confidence": 0.95, "finalists": 2, "method": "One after the other.",
            "looks": list(looks), "nearest_miss": None, "relax_to": None, "text": list(text)}


def certified(**changes: Any) -> dict[str, Any]:
    """Fields of results.json: trial 2 passed over as its latency is not settled, trial 0 certified."""
    found = certificate(
        "PASS", 0,
        look(2, "INCONCLUSIVE", held("accuracy >= 0.6", "PASS", 0.7, 0.64, 0.76, 320, 0.6),
             held("latency_ms.p95 <= 600", "INCONCLUSIVE", 586, 560, 613, 140, 600.0, unit="ms", n_to_settle=900)),
        look(0, "PASS", held("accuracy >= 0.6", "PASS", 0.69, 0.63, 0.75, 320, 0.6),
             held("latency_ms.p95 <= 600", "PASS", 274, 264, 302, 140, 600.0, unit="ms")),
        text=("Passed over: trial 2 (int8-b32).", "Certified: trial 0 (int4-b32)."))
    return {"certificate": found, "selected": {"trial": 0, "policy": "most-accurate", "certificate": found}, **changes}


def hopeless(**changes: Any) -> dict[str, Any]:
    """Fields of results.json: every deploy point was dropped, nothing was trained."""
    point = {"label": "int4-b32", "deploy": {}, "reason": "latency_ms.p95 is 700 ms or more on base weights",
             "values": {"latency_ms.p95": finished_runs.value(720, 20, 20, measured_on="base"),
                        "size_mb": finished_runs.value(210, measured_on="base")}}
    return {"trials": [], "front": [], "selected": None, "dropped": [point], "nearest_miss": {
        "trial": None, "expr": "latency_ms.p95 <= 600", "shortfall": 100.0, "unit": "ms", "deploy_point": "int4-b32"},
        **changes}


def missed(**changes: Any) -> dict[str, Any]:
    """Fields of results.json: no trial meets the limits, trial 1 comes nearest."""
    trials = [finished_runs.trial(n, "int8", 8 * (n + 1), 0.4 + 0.1 * n, 280, 340, feasible=False,
                                  verdicts={"accuracy >= 0.6": "FAIL", "latency_ms.p95 <= 600": "INCONCLUSIVE"})
              for n in range(2)]
    return {"trials": trials, "front": [], "selected": None,
            "nearest_miss": {"trial": 1, "expr": "accuracy >= 0.6", "shortfall": 0.1, "unit": ""}, **changes}


def many(count: int) -> dict[str, Any]:
    """Fields of results.json of a study of ``count`` trials, some stopped early and some failed."""
    draw = random.Random(0)
    trials = []
    for n in range(count):
        precision = ("int4", "int8", "fp16")[n % 3]
        latency = {"int4": 180, "int8": 280, "fp16": 450}[precision]
        accuracy = draw.uniform(0.4, 0.8)
        changes: dict[str, Any] = {"feasible": accuracy >= 0.6}
        if n % 10 == 9:
            changes = {"state": "PRUNED", "feasible": None, "verdicts": {}, "reason": "answers: stopped after 48 rows"}
        elif n % 50 == 8:
            changes = {"state": "FAILED", "feasible": None, "verdicts": {}, "values": {}, "reason": "train: nan"}
        rank = draw.choice((4, 8, 16, 32))
        trial = finished_runs.trial(n, precision, rank, accuracy, latency, latency * 1.2, **changes)
        trial["params"] |= {"learning_rate": 10 ** draw.uniform(-4, -2), "alpha": draw.choice((8.0, 16.0, 32.0))}
        trials.append(trial)
    best = [max((t for t in trials if t["feasible"] and t["params"]["precision"] == p),
                key=lambda t: t["values"]["accuracy"]["value"]) for p in ("int4", "int8", "fp16")]
    for trial in best:
        trial["on_front"] = True
    front = sorted(t["number"] for t in best)
    return {"trials": trials, "front": front,
            "selected": {"trial": front[0], "policy": "most-accurate", "certificate": None}}


def record(folder: Path, trials: int, name: str = "tone") -> None:
    """study.db of a study whose accuracy follows its learning rate, and its latency and size the precision."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=f"sqlite:///{folder / 'study.db'}", study_name=name,
                                directions=["maximize", "minimize", "minimize"])
    draw = random.Random(0)
    distributions = {
        "learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "rank": optuna.distributions.CategoricalDistribution((4, 8, 16)),
        "precision": optuna.distributions.CategoricalDistribution(("int4", "int8")),
    }
    for _ in range(trials):
        params = {"learning_rate": 10 ** draw.uniform(-4, -2), "rank": draw.choice((4, 8, 16)),
                  "precision": draw.choice(("int4", "int8"))}
        small = params["precision"] == "int4"
        study.add_trial(optuna.trial.create_trial(
            params=params, distributions=distributions,
            values=[params["learning_rate"] * 50, 180.0 if small else 280.0, 210.0 if small else 340.0]))


def hostile() -> dict[str, Any]:
    """Fields of results.json with markup in every text that a user, a model or a library may have given."""
    bad = HOSTILE
    changes = certified()
    document = finished_runs.document()
    for trial in document["trials"]:
        trial["deploy_point"] = bad
        trial["params"]["targets"] = bad + str(trial["number"])
        trial["values"][f"mine:{bad}"] = finished_runs.value(0.5, 0.1, 9)
    failed = finished_runs.trial(4, "int4", 8, 0, 0, 0, state="FAILED", feasible=None, verdicts={}, values={},
                                 deploy_point=bad, reason=f"train: {bad}")
    changes["certificate"] |= {"text": [bad], "method": bad}
    changes["certificate"]["looks"][0]["constraints"][1] |= {"doubt": bad, "compared": bad, "expr": bad}
    changes["certificate"]["looks"][0]["timing"] = {"sentence": bad}
    point = {"label": bad, "deploy": {}, "values": {bad: finished_runs.value(1)}, "timing": None}
    return {**changes, "trials": [*document["trials"], failed], "deploy_points": [point],
            "dropped": [{**point, "reason": bad}], "study": {"name": bad, "config_sha256": "0" * 64},
            "objectives": [*document["objectives"], {"name": f"mine:{bad}", "direction": "maximize", "unit": bad}],
            "environment": {bad: bad, "libraries": {bad: bad}}}


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data
