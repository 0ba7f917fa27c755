"""How far adapters trained on a bf16 base end from those trained on the same base in fp32: packed, and alone.

Rounding is chance: the same adapter trained alone in bf16, with the rows of each batch in another order, ends at a
different distance. So every way is told as the quotient of its distance and that of training alone through PEFT,
adapter by adapter, with the mean's 95 % interval over adapters (t); "other order" is that quotient for nothing but
chance.
"""

from __future__ import annotations

import copy
import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scipy import stats

#: (difference of losses, of matrices, of the B matrices alone) of one adapter.
Distance = tuple[float, float, float]
_Result = tuple[Sequence[float], Any]

ALONE = "bf16, alone through PEFT"


def distances(
    model: Any, base: Path, data: Any, wanted: Sequence[Any], variants: Sequence[str], say: Callable[[str], None]
) -> list[str]:
    """The lines of a table, one way to train a line."""
    wide = copy.deepcopy(model).float()
    exact = [_alone(wide, base, data, job) for job in wanted]
    say("distance: fp32 alone done")
    ways: dict[str, list[_Result]] = {"fp32, packed": _packed(wide, base, data, wanted, "eager")}
    del wide
    ways[ALONE] = [_alone(model, base, data, job) for job in wanted]
    with _rows_reversed():
        ways[f"{ALONE}, other order"] = [_alone(model, base, data, job) for job in wanted]
    say("distance: bf16 alone done")
    ways["bf16, packed, eager, one at a time"] = [_packed(model, base, data, [job], "eager")[0] for job in wanted]
    for variant in variants:
        try:
            ways[f"bf16, packed, {variant}"] = _packed(model, base, data, wanted, variant)
        except Exception as error:  # noqa: BLE001
            say(f"bf16, packed, {variant}: FAILED: {type(error).__name__}: {str(error)[:500]}")
    found = {way: [_distance(one, other) for one, other in zip(results, exact, strict=True)]
             for way, results in ways.items()}
    lines = ["| way | losses | matrices | B alone | matrices ÷ alone through PEFT | adapters no further |",
             "|---|---|---|---|---|---|"]
    lines += [_line(way, these, found[ALONE]) for way, these in found.items()]
    return [f"Distance to fp32 alone after {wanted[0].params.steps} steps, medians of {len(wanted)} adapters, mean "
            "quotients:", "", *lines, ""]


def _line(way: str, found: Sequence[Distance], reference: Sequence[Distance]) -> str:
    medians = [statistics.median(column) for column in zip(*found, strict=True)]
    quotients = [a[1] / b[1] for a, b in zip(found, reference, strict=True)]
    mean, nearer, count = statistics.mean(quotients), sum(q <= 1 for q in quotients), len(quotients)
    reach = stats.t.ppf(0.975, count - 1) * statistics.stdev(quotients) / count**0.5 if count > 1 else float("nan")
    told = "1" if way == ALONE else f"{mean:.4f} [{mean - reach:.4f}, {mean + reach:.4f}]"
    return (f"| {way} | {medians[0]:.2e} | {medians[1]:.3e} | {medians[2]:.2e} | {told} "
            f"| {nearer} of {len(found)} |")


@contextmanager
def _rows_reversed() -> Iterator[None]:
    """Batches of the same rows, from the last to the first: the same gradients but for rounding."""
    from autotune.pipeline import peft_training

    make = peft_training.make_batch
    peft_training.make_batch = lambda rows, device: make(rows[::-1], device)
    try:
        yield
    finally:
        peft_training.make_batch = make


def _alone(model: Any, base: Path, data: Any, job: Any) -> _Result:
    from safetensors.torch import load_file

    from autotune.pipeline.peft_training import train_through_peft

    state, _ = train_through_peft(model, base, data, job.params, job.out, job.seed)
    return state.losses, load_file(job.out / "adapter_model.safetensors")


def _packed(model: Any, base: Path, data: Any, wanted: Sequence[Any], speed: Any) -> list[_Result]:
    from safetensors.torch import load_file

    from autotune.pipeline.packed.engine import train_packed

    named = [dataclasses.replace(job, out=job.out / "packed") for job in wanted]
    results = train_packed(model, base, data, named, width=len(named), speed=speed)
    return [(r.losses, load_file(r.adapter / "adapter_model.safetensors")) for r in results]  # type: ignore[union-attr]


def _distance(one: _Result, other: _Result) -> Distance:
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
