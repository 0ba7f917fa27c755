"""Does the export compute what the PyTorch model computes? Asked once, at a template's highest precision."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og
import torch

from autotune.errors import ExportError
from autotune.pipeline.builder import first_line
from autotune.pipeline.resident import frozen_base
from autotune.pipeline.silence import silenced

#: Largest |Δ| as a share of the largest |logit|. fp32 against fp32 is ten times nearer than that.
TOLERANCE = 1e-3
#: Providers other than the CPU's compute in fp16 at most, which keeps 11 bits of every intermediate (Gemma 3 270M on an
#: H100: 1.4e-3).
HALF_TOLERANCE = 1e-2

Logits = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class LogitsCheck:
    """Next-token logits of the artifact against PyTorch in fp32, over all prompts.

    ``relative`` is ``max_abs_delta / max_abs_logit``. ``top1_agree`` of ``n`` prompts have the same top
    token, ties (two tokens closer than ``max_abs_delta``, and than the accepted
    difference) included. ``accepted`` is the largest ``relative`` that is ``ok``.
    """

    max_abs_delta: float
    max_abs_logit: float
    relative: float
    top1_agree: int
    n: int
    ok: bool
    accepted: float = TOLERANCE


def verify_logits(
    model_dir: Path,
    artifact: Path,
    prompts: Sequence[tuple[int, ...]],
    provider: str,
    threads: int,
    min_generator_length: int,
    adapter: Path | None = None,
) -> LogitsCheck:
    """Compare the logits that follow each prompt (token ids), one prompt at a time.

    ``adapter`` (PEFT's format) is laid over the PyTorch model in fp32. The criterion: max |Δ| ≤ 1e-3 of the
    largest |logit| (1e-2 where ``provider`` computes in fp16) and the same top token for every prompt.

    Raises ExportError when there are no prompts or the artifact does not run on ``provider``.
    """
    if not prompts or not all(prompts):
        raise ExportError("the export cannot be checked: no prompts, or an empty one, were given")
    expected = _torch_logits(model_dir, prompts, threads, adapter)
    found = _artifact_logits(artifact, prompts, provider, threads, min_generator_length)
    return compare_logits(expected, found, TOLERANCE if provider == "cpu" else HALF_TOLERANCE)


def compare_logits(
    expected: Sequence[Logits], found: Sequence[Logits], accepted: float = TOLERANCE
) -> LogitsCheck:
    """The check on logits already taken: one vector [vocabulary] per prompt, PyTorch's and the artifact's."""
    # A vocabulary padded by the exporter has more entries; those beyond the model's own are never right.
    deltas = [float(np.abs(e - f[: len(e)]).max()) for e, f in zip(expected, found, strict=True)]
    delta = max(deltas) if np.isfinite(deltas).all() else float("inf")
    largest = max(float(np.abs(e).max()) for e in expected)
    # When the logits are far off anyway, two distant tokens are no tie.
    tie = min(delta, accepted * largest)
    agree = sum(_same_top(e, f, tie) for e, f in zip(expected, found, strict=True))
    relative = delta / largest if largest else float("inf")
    ok = relative <= accepted and agree == len(deltas)
    return LogitsCheck(delta, largest, relative, agree, len(deltas), ok, accepted)


def require_agreement(check: LogitsCheck) -> None:
    """Raises ExportError, with the figures, when the export does not compute what PyTorch computes."""
    if check.ok:
        return
    raise ExportError(
        "the exported model disagrees with PyTorch: next-token logits differ by up to "
        f"{check.max_abs_delta:.3g} where the largest is {check.max_abs_logit:.3g} (relative "
        f"{check.relative:.2g}; accepted is {check.accepted:g}), "
        f"and the top token is the same for {check.top1_agree} of {check.n} prompts; the export of this "
        "architecture is at fault, not the trial's parameters"
    )


def _same_top(expected: Logits, found: Logits, tie: float) -> bool:
    if not np.isfinite(found).all():
        return False
    best, other = int(expected.argmax()), int(found.argmax())
    return best == other or (other < len(expected) and float(expected[best] - expected[other]) < tie)


def _torch_logits(
    model_dir: Path, prompts: Sequence[tuple[int, ...]], threads: int, adapter: Path | None
) -> list[Logits]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # The base that training on this machine keeps in memory, where it is this one.
        with (
            silenced(), frozen_base(model_dir, "fp32", "cpu") as base, _adapted(base, adapter) as model,
            torch.no_grad(),
        ):
            return [
                model(torch.tensor([prompt]), logits_to_keep=1, use_cache=False).logits[0, -1].float().numpy()
                for prompt in prompts
            ]
    finally:
        torch.set_num_threads(before)


@contextmanager
def _adapted(base: Any, adapter: Path | None) -> Iterator[Any]:
    """The base with the adapter for this block, and without it again afterwards."""
    if adapter is None:
        yield base
        return
    from peft import PeftModel

    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    try:
        yield model
    finally:
        model.unload()


def _artifact_logits(
    artifact: Path, prompts: Sequence[tuple[int, ...]], provider: str, threads: int, min_generator_length: int
) -> list[Logits]:
    try:
        config = og.Config(str(artifact))
        options = {"session_options": {"intra_op_num_threads": threads}}
        config.overlay(json.dumps({"model": {"decoder": options}}))
        model = og.Model(config)
        return [_next_logits(model, prompt, min_generator_length) for prompt in prompts]
    except Exception as error:
        reason = first_line(error)
        raise ExportError(f"{artifact.name}: the export does not run on {provider}: {reason}") from error


def _next_logits(model: Any, prompt: tuple[int, ...], min_generator_length: int) -> Logits:
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=max(len(prompt) + 1, min_generator_length), do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens(np.array([prompt], np.int32))
    logits: Logits = np.array(generator.get_logits(), np.float32)[0, -1]
    return logits
