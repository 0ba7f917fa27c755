"""What a table is recorded of: adapters drawn from a wide space, deploy points that differ, and the rungs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search_spaces.adapter import AdapterParams, TargetGroup
from search_spaces.deploy import DeployParams

RUNGS = (0.2, 0.4, 0.6, 0.8, 1.0)

POINTS = (
    DeployParams("fp16"),
    DeployParams("int8"),
    DeployParams("int4"),
    DeployParams("int4", symmetric=False),
    DeployParams("int4", block_size=128),
    DeployParams("int4", algorithm="k_quant"),
    DeployParams("int4", algorithm="k_quant", int8_where="head"),
    DeployParams("int4", algorithm="k_quant", int8_where="mixed_layers"),
)

#: Rungs that are judged at every point's rounding; the others only at full precision, for k-quant takes its time.
ROUNDED_AT = (0.2, 0.4, 1.0)

#: Artifacts are asked in pieces, so that a recording that ends early has the same rows of all of them. Piece 0 are
#: the validation rows; piece i after it is every sixth test row, from this row on.
PIECES = (0, 3, 1, 4, 2, 5)

#: Adapters whose fp16 artifacts are asked, too. It computes in fp32, as PyTorch does, so its answers are those of the
#: rounded weights in PyTorch; these adapters are there to see that.
FP16_ASKED = 4

#: The points that a search tries first (`autotune.search.schedule`), at the defaults for the rest.
EXPERTS = (
    AdapterParams(16, 16, 5e-4, "all-linear"),
    AdapterParams(16, 32, 2e-4, "all-linear"),
    AdapterParams(8, 16, 5e-4, "attention"),
    AdapterParams(32, 32, 1e-3, "all-linear"),
)


@dataclass(frozen=True)
class Plan:
    """``context`` is the artifacts' context length in tokens."""

    adapters: tuple[AdapterParams, ...]
    points: tuple[DeployParams, ...]
    rungs: tuple[float, ...]
    seed: int
    context: int

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> Plan:
        raw: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            tuple(AdapterParams(**params) for params in raw["adapters"]),
            tuple(DeployParams(**params) for params in raw["points"]),
            tuple(raw["rungs"]), raw["seed"], raw["context"],
        )


def draw(count: int, seed: int) -> list[AdapterParams]:
    """``count`` adapters: the expert points, then quasi-random ones (Halton's sequence, scrambled).

    Rank 4–128, scale 0.5–4 and learning rate 1e-4–2e-3 are spread evenly on log axes.
    """
    from scipy.stats import qmc

    points = qmc.Halton(d=7, seed=seed).random(max(0, count - len(EXPERTS)))
    return [*EXPERTS[:count], *(_adapter(point) for point in points.tolist())]


def _adapter(at: Sequence[float]) -> AdapterParams:
    rank = round(_log(at[0], 4, 128))
    scale = float(f"{_log(at[1], 0.5, 4):.3g}")
    targets: tuple[TargetGroup, ...] = ("all-linear", "all-linear", "attention", "mlp")
    return AdapterParams(
        rank, round(scale * rank, 4), float(f"{_log(at[2], 1e-4, 2e-3):.3g}"), _of(at[3], targets),
        dropout=_of(at[4], (0.0, 0.05)), epochs=_of(at[5], (1.0, 2.0)), batch_size=_of(at[6], (8, 16)),
    )


def _log(at: float, low: float, high: float) -> float:
    return low * math.exp(at * math.log(high / low))


def _of(at: float, values: Sequence[Any]) -> Any:
    return values[int(at * len(values))]
