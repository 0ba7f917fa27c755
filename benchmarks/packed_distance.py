"""How far adapters trained on a bf16 base end from those trained on the same base in fp32: packed, and alone."""

from __future__ import annotations

import copy
import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

#: (difference of losses, of matrices, of the B matrices alone) of one adapter.
Distance = tuple[float, float, float]


def distances(
    model: Any, base: Path, data: Any, wanted: Sequence[Any], variants: Sequence[str], say: Callable[[str], None]
) -> list[str]:
    """The lines of a table: medians over adapters, and for how many a way is no further than bf16 alone is."""
    from autotune.pipeline.packed import pack

    wide = copy.deepcopy(model).float()
    exact = [_alone(wide, base, data, job) for job in wanted]
    say("distance: fp32 alone done")
    ways: dict[str, list[Any]] = {"fp32, packed": _packed(wide, base, data, wanted, "eager")}
    del wide
    ways["bf16, alone through PEFT"] = alone = [_alone(model, base, data, job) for job in wanted]
    decides = pack.widens
    for small, widen in (("by parts", False), ("fp32", True)):
        pack.widens = lambda _, widen=widen: widen
        for variant in variants:
            way = f"bf16, packed, {variant}, small products {small}"
            try:
                ways[way] = _packed(model, base, data, wanted, variant)
            except Exception as error:  # noqa: BLE001
                say(f"{way}: FAILED: {type(error).__name__}: {str(error)[:500]}")
    pack.widens = decides
    reference = [_distance(one, other) for one, other in zip(alone, exact, strict=True)]
    lines = ["| way | losses | matrices | B alone | adapters no further than bf16 alone |", "|---|---|---|---|---|"]
    for way, results in ways.items():
        found = [_distance(one, other) for one, other in zip(results, exact, strict=True)]
        medians = [statistics.median(column) for column in zip(*found, strict=True)]
        nearer = sum(a[1] <= b[1] for a, b in zip(found, reference, strict=True))
        lines.append(f"| {way} | {medians[0]:.3e} | {medians[1]:.3e} | {medians[2]:.3e} | {nearer} of {len(found)} |")
    return [f"Distance to fp32 alone after {wanted[0].params.steps} steps, medians of {len(wanted)} adapters:", "",
            *lines, ""]


def _alone(model: Any, base: Path, data: Any, job: Any) -> tuple[Sequence[float], Any]:
    from safetensors.torch import load_file

    from autotune.pipeline.peft_training import train_through_peft

    state, _ = train_through_peft(model, base, data, job.params, job.out, job.seed)
    return state.losses, load_file(job.out / "adapter_model.safetensors")


def _packed(model: Any, base: Path, data: Any, wanted: Sequence[Any], speed: Any) -> list[tuple[Sequence[float], Any]]:
    from safetensors.torch import load_file

    from autotune.pipeline.packed.engine import train_packed

    named = [dataclasses.replace(job, out=job.out / "packed") for job in wanted]
    results = train_packed(model, base, data, named, width=len(named), speed=speed)
    return [(r.losses, load_file(r.adapter / "adapter_model.safetensors")) for r in results]  # type: ignore[union-attr]


def _distance(one: tuple[Sequence[float], Any], other: tuple[Sequence[float], Any]) -> Distance:
    import torch

    losses = torch.tensor(one[0]) - torch.tensor(other[0])
    ups = [name for name in other[1] if "lora_B" in name]
    return (
        float(losses.norm() / torch.tensor(other[0]).norm()),
        _relative(one[1], other[1], list(other[1])),
        _relative(one[1], other[1], ups),
    )


def _relative(one: Any, other: Any, names: Sequence[str]) -> float:
    difference = sum(float((one[name] - other[name]).double().norm() ** 2) for name in names)
    return float((difference / sum(float(other[name].double().norm() ** 2) for name in names)) ** 0.5)
