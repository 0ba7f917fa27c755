"""DeployParams: what turns weights into a file, and which execution provider can run the result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
Algorithm = Literal["default", "rtn", "k_quant"]
Int8Where = Literal["none", "head", "mixed_layers"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "int8", "int4")
ALGORITHMS: tuple[Algorithm, ...] = ("default", "rtn", "k_quant")
INT8_WHERE: tuple[Int8Where, ...] = ("none", "head", "mixed_layers")
BLOCK_SIZES: tuple[int, ...] = (16, 32, 64, 128, 256)
QUANTIZED: tuple[Precision, ...] = ("int8", "int4")


@dataclass(frozen=True)
class DeployParams:
    """One deploy point.

    The fields below ``precision`` mean something for int8 and int4 alone and hold their defaults
    elsewhere. ``algorithm`` is the rounding (ModelBuilder's own names); ``block_size`` is the number
    of weights that share a scale; ``int8_where`` names the matrices of an int4 artifact that stay
    at 8 bits; ``accuracy_level`` is MatMulNBits' compute type (4: int8 activations, 1: fp32).
    ``prune_head`` computes logits for the last prompt token alone; ``share_embedding`` reads the
    embedding out of the quantized head (tied models) or quantizes it beside (untied ones).
    """

    precision: Precision
    algorithm: Algorithm = "default"
    block_size: int = 32
    symmetric: bool = True
    int8_where: Int8Where = "none"
    accuracy_level: int = 4
    prune_head: bool = True
    share_embedding: bool = True

    @property
    def label(self) -> str:
        """A short unique name: ``int4-k_quant-b32-int8head``."""
        parts: list[str] = [self.precision]
        if self.precision in QUANTIZED:
            if self.algorithm != "default":
                parts.append(self.algorithm)
            parts.append(f"b{self.block_size}")
            if not self.symmetric:
                parts.append("asym")
            if self.int8_where != "none":
                parts.append("int8" + self.int8_where)
            if self.accuracy_level != 4:
                parts.append(f"acc{self.accuracy_level}")
            if not self.share_embedding:
                parts.append("floatembed")
        if not self.prune_head:
            parts.append("fullhead")
        return "-".join(parts)

    def flat(self) -> dict[str, int | float | str | bool]:
        """Field name → value, as results.json and Optuna hold them."""
        return asdict(self)
