"""Which template the artifacts of a deploy point are made from: known without any heavy import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from search_spaces.deploy import DeployParams

Floats = Literal["fp32", "fp16", "bf16"]

#: Up to this many positions sliding-window layers get key-value caches of full length: a little more
#: memory, and the artifact runs whatever ``max_length`` its user sets. Beyond it the memory matters
#: more (1 GB at 32,768 positions of a 270M Gemma 3), so the cache is the window and ``max_length``
#: must not be shorter.
_FULL_CACHE_UP_TO = 8192


@dataclass(frozen=True)
class TemplateParams:
    """What of deploy params and target shapes the graph. ``floats`` is the type of its float tensors."""

    provider: str
    floats: Floats
    prune_head: bool
    windowed_cache: bool


def template_params(point: DeployParams, provider: str, context_length: int) -> TemplateParams:
    """On the CPU EP one template serves every precision, since all compute in fp32 there."""
    floats: Floats = "fp32"
    if provider != "cpu" and point.precision != "fp32":
        floats = "bf16" if point.precision == "bf16" else "fp16"
    return TemplateParams(provider, floats, point.prune_head, context_length > _FULL_CACHE_UP_TO)
