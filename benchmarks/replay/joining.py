"""The table (TABLE.md) out of what was recorded on one machine and what searching costs on another."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.pipeline.rungs import rung_steps
from benchmarks.replay.table import PLAIN
from benchmarks.replay.workshop import Workshop, read_json
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

SCHEMA = "autotune/replay-table@1"
#: Share of the cores that others may take before processor seconds stand for the clock's, as in `costs`.
QUIET = 0.1


def seconds(piece: Mapping[str, Any], threads: int) -> float:
    """What a measured piece of work takes on a quiet machine."""
    if piece["others"] <= QUIET:
        return float(piece["wall_s"])
    return min(float(piece["wall_s"]), float(piece["cpu_s"]) / threads)


@dataclass(frozen=True)
class StepCost:
    """Seconds of a training step: ``fixed`` + tokens · (``each``[targets] + ``by_rank``[targets] · rank), and that
    times ``dropout`` where there is some."""

    fixed: float
    each: Mapping[str, float]
    by_rank: Mapping[str, float]
    dropout: float

    @classmethod
    def fitted(cls, measured: Sequence[Mapping[str, Any]], threads: int) -> StepCost:
        """From steps of two ranks for each kind of targets, of two batch sizes, and of one with dropout."""
        plain = [m for m in measured if not m["dropout"]]
        sizes = sorted({m["batch_size"] for m in plain})
        small = {(m["targets"], m["rank"]): m for m in plain if m["batch_size"] == sizes[0]}
        large = next(m for m in plain if m["batch_size"] == sizes[-1])
        beside = small[large["targets"], large["rank"]]
        slope = (seconds(large, threads) - seconds(beside, threads)) / (large["tokens"] - beside["tokens"])
        fixed = max(0.0, seconds(beside, threads) - slope * beside["tokens"])
        each, by_rank = {}, {}
        for targets in {kind for kind, _ in small}:
            (low, m), (high, n) = sorted((rank, m) for (kind, rank), m in small.items() if kind == targets)
            at_low, at_high = ((seconds(x, threads) - fixed) / x["tokens"] for x in (m, n))
            by_rank[targets] = max(0.0, (at_high - at_low) / (high - low))
            each[targets] = at_low - by_rank[targets] * low
        dropped = next(m for m in measured if m["dropout"])
        without = small[dropped["targets"], dropped["rank"]]
        return cls(fixed, each, by_rank, max(1.0, seconds(dropped, threads) / seconds(without, threads)))

    def of(self, params: AdapterParams, tokens: float) -> float:
        rate = self.each[params.targets] + self.by_rank[params.targets] * params.rank
        return (self.fixed + tokens * rate) * (self.dropout if params.dropout else 1.0)


class Join:
    """``records`` are what ``train`` wrote, later ones over earlier ones; ``costs`` is the folder of ``measure``."""

    def __init__(self, shop: Workshop, records: Sequence[Path], costs: Path, threads: int) -> None:
        self.shop, self.threads = shop, threads
        self.records: dict[str, dict[str, Any]] = {"training": {}, "judged": {}, "answers": {}}
        for file in records:
            with gzip.open(file, "rt", encoding="utf-8") as content:
                found = json.load(content)
            for kind, known in self.records.items():
                known.update(found[kind])
            self.settings = found["settings"]
        self.costs = {file.stem: read_json(file) for file in costs.glob("*.json")}
        self.step = StepCost.fitted([c for name, c in self.costs.items() if name.startswith("step-")], threads)
        data = shop.data
        self._mean_tokens = sum(len(row.prompt) + len(row.answer) for row in data.train) / len(data.train)

    def table(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        plan, data = self.shop.plan, self.shop.data
        return {
            "schema": SCHEMA,
            "provenance": {**provenance, "step": self._step_model(), "agreement": self.agreement()},
            "rungs": list(plan.rungs),
            "rows": {"judged": len(data.valid), "valid": len(data.valid), "test": len(data.test)},
            "points": [self._point(point) for point in plan.points],
            "adapters": [self._adapter(n, params) for n, params in enumerate(plan.adapters)],
        }

    def agreement(self) -> dict[str, Any]:
        """By point: of how many answers of artifacts the rounded weights in PyTorch gave the same flag, and how many
        were right by either."""
        last = len(self.shop.plan.rungs) - 1
        found: dict[str, dict[str, int]] = {}
        for name, asked in self.records["answers"].items():
            number, _, rest = name.partition("-")
            label, _, piece = rest.rpartition("-")
            judged = self.records["judged"].get(f"{number}-{last}")
            if judged is None or "failed" in asked or piece != "0":
                continue
            ours, theirs = judged["points"][self._judged_as(label)]["right"], asked["right"]
            counts = found.setdefault(label, {"rows": 0, "same": 0, "right_artifact": 0, "right_rounded": 0})
            counts["rows"] += len(theirs)
            counts["same"] += sum(a == b for a, b in zip(ours, theirs, strict=True))
            counts["right_artifact"] += theirs.count("1")
            counts["right_rounded"] += ours.count("1")
        return found

    def _judged_as(self, label: str) -> str:
        """What a point was judged as: itself, or at full precision where its rounding counts as none."""
        return label if any(label in judged["points"] for judged in self.records["judged"].values()) else PLAIN

    def _point(self, point: DeployParams) -> dict[str, Any]:
        probe = self.costs[f"probe-{point.label}"]
        template = self._cost("template") / len(self.shop.plan.points)
        return {
            "label": point.label, "params": point.flat(), "latency_ms": probe["latency_ms"],
            "size_mb": probe["size_mb"], "rounding": self._judged_as(point.label),
            "probe_s": round(template + self._cost(f"point-{point.label}") + float(probe["wall_s"]), 2),
        }

    def _adapter(self, number: int, params: AdapterParams) -> dict[str, Any]:
        rungs, failed, before = [], None, 0
        examples = len(self.shop.data.train)
        steps = params.training_steps(examples)
        for rung, step in enumerate(rung_steps(params, examples, self.shop.plan.rungs)):
            training = self.records["training"].get(f"{number}-{rung}")
            if training is None or "failed" in training:
                failed = training["failed"] if training else failed
                break
            rungs.append(self._rung(number, rung, step, self._training_seconds(params, step - before), training))
            before = step
        final = self._final(number) if len(rungs) == len(self.shop.plan.rungs) else {}
        return {"params": params.flat(), "steps": steps, "failed": failed, "rungs": rungs, "final": final}

    def _training_seconds(self, params: AdapterParams, steps: int) -> float:
        """Steps of one adapter alone."""
        return round(steps * self.step.of(params, params.batch_size * self._mean_tokens), 3)

    def _rung(
        self, number: int, rung: int, step: int, trained: float, training: Mapping[str, Any]
    ) -> dict[str, Any]:
        judged = self.records["judged"].get(f"{number}-{rung}", {"points": {}})["points"]
        loss = training["valid_loss_64"]
        if loss is None and PLAIN in judged:
            loss = judged[PLAIN]["loss"]
        return {"step": step, "seconds": trained, "valid_loss": loss, "judged": {
            label: {"right": found["right"], "loss": found["loss"], "seconds": self._judging_seconds(label)}
            for label, found in judged.items()
        }}

    def _judging_seconds(self, label: str) -> float:
        plain = self._cost(f"judge-{PLAIN}")
        return round(plain if label == PLAIN else max(0.1, self._cost(f"judge-{label}") - plain), 2)

    def _final(self, number: int) -> dict[str, Any]:
        """The artifact's answers where it was asked, and elsewhere those of its rounded weights in PyTorch."""
        judged = self.records["judged"].get(f"{number}-{len(self.shop.plan.rungs) - 1}")
        found = {}
        for label in (point.label for point in self.shop.plan.points):
            asked = self.records["answers"].get(f"{number}-{label}-0", {})
            rounded = judged["points"].get(self._judged_as(label)) if judged else None
            if "failed" in asked or rounded is None:
                continue
            found[label] = {
                "valid": asked.get("right", rounded["right"]), "test": rounded["test"],
                "valid_of": "artifact" if asked else "rounded weights", "test_of": "rounded weights",
                "assemble_s": round(self._cost(f"assemble-{label}"), 2), "score_s": self._scoring_seconds(label),
            }
        return found

    def _scoring_seconds(self, label: str) -> float:
        """Opening the artifact once, and as many rows as are asked at the measured rows' pace."""
        piece = self.costs[f"ask-{label}"]
        whole = seconds(piece, self.threads)
        load = min(float(piece["load_s"]), whole / 2)
        return round(load + (whole - load) * len(self.shop.data.valid) / int(piece["rows"]), 2)

    def _cost(self, name: str) -> float:
        return seconds(self.costs[name], self.threads)

    def _step_model(self) -> dict[str, Any]:
        return {
            "formula": "seconds of a step = (fixed + tokens * (each[targets] + by_rank[targets] * rank)) * "
                       f"(dropout if there is some); tokens = batch size * {self._mean_tokens:.2f}.",
            "fixed": self.step.fixed, "each": dict(sorted(self.step.each.items())),
            "by_rank": dict(sorted(self.step.by_rank.items())),
            "dropout": self.step.dropout,
        }


def write_table(table: Mapping[str, Any], file: Path) -> None:
    """The same table gives the same bytes."""
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False)
    with file.open("wb") as out, gzip.GzipFile("", "wb", 9, out, mtime=0) as packed:
        packed.write(text.encode())
