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


@dataclass(frozen=True)
class Provider:
    """What one execution provider (EP) of ONNX Runtime can run, as ModelBuilder exports it."""

    title: str
    precisions: tuple[Precision, ...]
    int8_where: tuple[Int8Where, ...]
    accuracy_levels: tuple[int, ...]
    algorithms: tuple[Algorithm, ...] = ALGORITHMS
    block_sizes: tuple[int, ...] = BLOCK_SIZES
    asymmetric: bool = True


#: EP name, as in ``target.provider`` → what it runs. fp16 on the CPU EP is storage: fp16 weights that
#: are widened to fp32 when the model loads, because ModelBuilder's own fp16 graph does not run there.
#: MatMulNBits takes a compute type on the CPU EP alone (0 lets it choose, 1 is fp32, 4 is int8); the
#: others ignore the attribute or refuse it, so there the default stands for "unset". The CUDA EP's grouped
#: attention has no fp32, and what ModelBuilder writes in its place lacks the cache's outputs: no session opens it.
PROVIDERS: dict[str, Provider] = {
    "cpu": Provider("the CPU EP", ("fp32", "fp16", "int8", "int4"), INT8_WHERE, (0, 1, 4)),
    "cuda": Provider("the CUDA EP", ("bf16", "fp16", "int8", "int4"), INT8_WHERE, (0, 4)),
    "dml": Provider("the DirectML EP", ("fp16", "int4"), ("none",), (0, 4)),
}


def highest_precision(provider: str) -> DeployParams | None:
    """What an export is checked at: fp32 where the EP has it, else fp16; None for an EP with neither."""
    points = (DeployParams("fp32"), DeployParams("fp16"))
    return next((point for point in points if unsupported(point, provider) is None), None)


def unsupported(params: DeployParams, provider: str) -> str | None:
    """One sentence why an EP cannot do this deploy point; None when it can."""
    if provider not in PROVIDERS:
        return f"there is no execution provider {provider!r}: known are {', '.join(PROVIDERS)}."
    ep = PROVIDERS[provider]
    if params.precision not in ep.precisions:
        return f"{ep.title} cannot run {params.precision}: it runs {', '.join(ep.precisions)}."
    if params.precision not in QUANTIZED:
        return _needs_quantized(params)
    checks: tuple[tuple[str, object, tuple[object, ...]], ...] = (
        ("algorithm", params.algorithm, ep.algorithms),
        ("block_size", params.block_size, ep.block_sizes),
        ("int8_where", params.int8_where, ep.int8_where),
        ("accuracy_level", params.accuracy_level, ep.accuracy_levels),
    )
    for field, found, accepted in checks:
        if found not in accepted:
            return f"{ep.title} cannot do {field} {found}: it does {', '.join(map(str, accepted))}."
    if not params.symmetric and not ep.asymmetric:
        return f"{ep.title} cannot do asymmetric {params.precision}."
    return _contradiction(params)


def _contradiction(params: DeployParams) -> str | None:
    """Points that no EP can do, or that are another point under a second name."""
    if params.precision == "int8" and params.int8_where != "none":
        return f"int8_where {params.int8_where} means nothing at int8, where every matrix has 8 bits."
    if params.algorithm == "k_quant" and params.symmetric is False:
        return "k_quant always has zero points, so asymmetric k_quant is the same point as symmetric k_quant."
    return None


def _needs_quantized(params: DeployParams) -> str | None:
    """A float point must hold the defaults of the fields that only quantized ones have."""
    plain = DeployParams(params.precision, prune_head=params.prune_head)
    for field, found in params.flat().items():
        default = plain.flat()[field]
        if found != default:
            return f"{field} {found} means nothing at {params.precision}, only at {' and '.join(QUANTIZED)}."
    return None
