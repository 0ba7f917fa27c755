"""What judging an adapter gave, as it is stored; and by deploy point, as a search asks for it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.pipeline.roundings import FULL, rounding
from search_spaces.deploy import DeployParams

if TYPE_CHECKING:
    from autotune.pipeline.judge import Judged

_FILE = "judged.json"


@dataclass(frozen=True)
class Judgement:
    """Of ``rows`` validation rows: the mean loss of an answer token at full precision, or where that was not judged at
    the first rounding (nats; None where it is not finite), and by deploy point's label that loss with its rounding and
    how many rows are right (empty without labels).
    """

    rows: int
    loss: float | None
    losses: Mapping[str, float | None]
    right: Mapping[str, int]


def write(found: Mapping[DeployParams, Judged], folder: Path) -> None:
    """Everything about each row, from which every number can be computed again."""
    record = [
        {"rounding": shared.label, "deploy": shared.flat(), "rows": len(judged.losses), "loss": _finite(judged.loss),
         "right": sum(judged.right) if judged.right else None, "rows_right": list(judged.right),
         "rows_losses": [[_finite(total), count] for total, count in judged.losses]}
        for shared, judged in found.items()
    ]
    (folder / _FILE).write_text(json.dumps(record), encoding="utf-8")


def read(folder: Path, points: Iterable[DeployParams]) -> Judgement:
    """What ``write`` wrote, for these deploy points. Raises KeyError for one whose rounding was not judged."""
    record: list[dict[str, Any]] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    by_rounding = {entry["rounding"]: entry for entry in record}
    full = by_rounding.get(FULL.label, record[0])
    mine = {point.label: by_rounding[rounding(point).label] for point in points}
    return Judgement(
        full["rows"], full["loss"], {label: entry["loss"] for label, entry in mine.items()},
        {label: entry["right"] for label, entry in mine.items() if entry["right"] is not None},
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
