"""AdapterParams: everything that names one trained LoRA adapter."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

TargetGroup = Literal["attention", "mlp", "all-linear", "qv"]
Variant = Literal["lora", "rslora", "dora"]
BasePrecision = Literal["fp32", "bf16", "nf4", "int8"]

TARGET_GROUPS: tuple[TargetGroup, ...] = ("attention", "mlp", "all-linear", "qv")
VARIANTS: tuple[Variant, ...] = ("lora", "rslora", "dora")
BASE_PRECISIONS: tuple[BasePrecision, ...] = ("fp32", "bf16", "nf4", "int8")


@dataclass(frozen=True)
class AdapterParams:
    """One point of the adapter space.

    ``alpha / rank`` is the LoRA scale (Hu et al. 2021, arXiv 2106.09685); ``rslora`` divides by
    ``sqrt(rank)`` instead (arXiv 2312.03732); ``dora`` also trains a magnitude (arXiv 2402.09353).
    ``steps``, when given, wins over ``epochs``. ``base_precision`` is how the frozen base is held
    while training: ``nf4`` and ``int8`` through bitsandbytes (QLoRA, arXiv 2305.14314).
    """

    rank: int
    alpha: float
    learning_rate: float
    targets: TargetGroup = "all-linear"
    dropout: float = 0.0
    epochs: float = 2.0
    steps: int | None = None
    batch_size: int = 8
    variant: Variant = "lora"
    base_precision: BasePrecision = "fp32"

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def training_steps(self, examples: int) -> int:
        """Optimizer steps: ``steps`` where given, else ``epochs`` (fractions count) over that many examples."""
        if self.steps is not None:
            return self.steps
        return max(1, round(self.epochs * math.ceil(examples / self.batch_size)))

    def flat(self) -> dict[str, int | float | str | None]:
        """Field name → value, as results.json and Optuna hold them."""
        return asdict(self)
