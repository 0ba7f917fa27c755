"""What a study will take, before it starts: minutes, disk and memory. Arithmetic on known sizes, no work.

Made once a study: the float template, then for each deploy point its own template and a probe of the base.
Made for each adapter: its training. Made for each trial: the layer matrices of the artifact (the rest is
hard links) and the answers to the validation rows. Made for a finalist: its timing, and its answers to the test rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.pipeline.architectures import ModelFacts
from autotune.pipeline.tokens import Example, TokenizedData
from search_spaces.adapter import BasePrecision
from search_spaces.deploy import QUANTIZED, DeployParams

#: Shares of the measured matmul rate that a step and a prompt reach (measured on 2 AVX2 cores).
_TRAINING_EFFICIENCY = 0.6
_SCORING_EFFICIENCY = 0.35
#: A generated token costs as much as this many tokens of a prompt.
_GENERATED_TOKEN = 4

#: Seconds per GB of safetensors weights that are still to be had: download or conversion.
_BASE_S_PER_GB = 50.0
#: Seconds per GB of fp32 weights: a ModelBuilder run, loading the base for training (once a process).
_TEMPLATE_S_PER_GB = 12.0
_LOAD_S_PER_GB = 1.0
#: Seconds per 1e9 weights of the model: a point's own template.
_POINT_S_PER_1E9 = {"float": 40.0, "default": 16.0, "rtn": 16.0, "k_quant": 50.0}
#: Seconds per 1e8 changed weights: merging, rounding and writing an artifact's layer matrices (measured at the shape of
#: Llama-3.2-1B, rtn apart).
_ASSEMBLY_S_PER_1E8 = {"float": 1.6, "default": 1.2, "rtn": 2.0, "k_quant": 5.0}
#: Seconds: first use of PyTorch and PEFT in a process; evaluation and saving; starting the process that answers.
_START_S = 7.0
_FIXED_S_PER_ADAPTER = 3.0
_FIXED_S_PER_TRIAL = 8.0
#: Requests in all for one that counts, of an artifact timed by turns: half as many of the reference, untimed ones after
#: each turn, rounds made again.
_TURNS = 2.0

_BITS = {"fp32": 32.0, "bf16": 16.0, "fp16": 16.0, "int8": 8.0, "int4": 4.0}
#: Bits a weight of the frozen layer matrices takes while training, scales included.
_TRAINING_BITS: dict[BasePrecision, float] = {"fp32": 32.0, "bf16": 16.0, "nf4": 4.5, "int8": 8.1}
#: Cosines and sines, fp32, of heads up to 256 wide; twice, as sliding layers may have theirs.
_ROPE_BYTES_PER_POSITION = 2048
#: An adapter's weights as a share of the layers', generously (rank 64 on a hidden size of 2048).
_ADAPTER_SHARE = 0.05
#: Bytes of a Python process with PyTorch or ONNX Runtime and what they hold beside the model.
_PROCESS_BYTES = 1e9
#: fp32 values that autograd keeps for a token and layer, in hidden sizes (MLP about four times as wide).
_ACTIVATIONS_PER_HIDDEN = 40
#: Logits held at once while training (fp32, with their gradient and softmax), at most so many.
_MAX_LOGITS = 1 << 26
#: ONNX Runtime holds float weights twice while it loads them (it repacks fp32, widens fp16).
_SESSION_COPIES = 2.0
#: Artifacts a point keeps: those on the front. Others are dropped once they are measured.
_KEPT_PER_POINT = 2


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes of what is still to be done.

    ``disk`` is what the store grows by; ``memory`` the peak of the stage named by ``hungriest``;
    ``misfits`` what will not fit. ``templates_s`` is what is made once a study, base probes included. ``seconds`` hold
    one finalist's certificate where there is to be one.
    """

    adapters: int
    trials: int
    seconds_per_adapter: float
    seconds_per_trial: float
    seconds: float
    disk: float
    memory: float
    misfits: tuple[str, ...]
    templates_s: float = 0.0
    hungriest: str = "training"
    seconds_per_finalist: float = 0.0


@dataclass(frozen=True)
class Certifying:
    """Requests that a finalist is timed with, the seconds this may take, and those of load before it."""

    requests: int
    max_seconds: float
    sustain_seconds: float


def artifact_bytes(facts: ModelFacts, point: DeployParams) -> float:
    """Weights at the point's bits plus its scales (an fp32 one a block)."""
    return facts.parameters * _bits(point) / 8


def changed_bytes(facts: ModelFacts, point: DeployParams) -> float:
    """What an adapter's artifact takes beside its point's: the layer matrices; the rest is hard links."""
    return layer_parameters(facts) * _bits(point) / 8


def template_bytes(facts: ModelFacts) -> float:
    """The float template: embedding and head in fp32 and full RoPE caches; layer matrices stay in the base."""
    kept = facts.parameters - layer_parameters(facts)
    return kept * 4 + facts.context_length * _ROPE_BYTES_PER_POSITION


def estimate(
    facts: ModelFacts, data: TokenizedData, points: tuple[DeployParams, ...], *, adapters: int, trials: int | None,
    epochs: float, steps: int | None, batch_size: int, gflops: float, prompt_tokens: int, new_tokens: int,
    samples: int, free_disk: float, free_memory: float, base_precision: BasePrecision = "fp32",
    base_bytes: float = 0.0, have_template: bool = False, have_points: int = 0, certifying: Certifying | None = None,
    time_s: float = math.inf, devices_in_sequence: float = 1.0,
) -> Estimate:
    """``epochs``, ``steps`` and ``batch_size`` are the space's typical ones; ``gflops`` this machine's rate.

    ``base_precision`` is the hungriest that training may use. ``base_bytes`` is the base model's folder
    where it is still to be made, ``have_template`` and ``have_points`` what the store holds already. ``time_s`` is
    the budget, which holds the first finalist's certificate too. ``devices_in_sequence``: so many are measured
    one after the other, each taken to be as fast as the target.
    """
    total_trials = min(adapters * len(points), trials or adapters * len(points))
    missing = _largest_missing(facts, points, have_points)
    request = prompt_tokens + _GENERATED_TOKEN * new_tokens
    # Of the point and, by turns with it, of the reference.
    probe = _scoring_seconds(facts, 2 * samples * request, gflops)
    once = (_once_seconds(facts, missing, base_bytes, have_template)
            + devices_in_sequence * len(missing) * (probe + _FIXED_S_PER_TRIAL))
    per_adapter = _training_seconds(facts, data, epochs, steps, batch_size, gflops) + _FIXED_S_PER_ADAPTER
    scoring = _scoring_seconds(facts, sum(len(e.prompt) for e in data.valid), gflops) + _FIXED_S_PER_TRIAL
    per_trial = scoring + _assembly_seconds(facts, points)
    started = _START_S + _LOAD_S_PER_GB * facts.parameters * 4 / 1e9
    # The untrained base answers the validation rows too.
    search = started + once + scoring + adapters * per_adapter + total_trials * per_trial
    finalist = devices_in_sequence * _finalist_seconds(facts, data, certifying, request, gflops)
    disk = base_bytes + _study_disk(facts, points, missing, adapters, total_trials, have_template)
    stages = _memory(facts, data, points, batch_size, base_precision, bool(missing), have_template)
    hungriest = max(stages, key=lambda name: stages[name])
    memory = stages[hungriest]
    misfits = shortage(disk, memory, free_disk, free_memory, hungriest)
    seconds = min(search + finalist, max(time_s, finalist))
    return Estimate(adapters, total_trials, per_adapter, per_trial, seconds, disk, memory, misfits, once, hungriest,
                    finalist)


def shortage(
    disk: float, memory: float, free_disk: float, free_memory: float, hungriest: str = "training"
) -> tuple[str, ...]:
    """A sentence for each of disk and memory that is too small, with what would help; bytes all of them.

    ``hungriest`` is the stage that needs the memory, as ``Estimate`` names it.
    """
    found = []
    if disk > free_disk:
        found.append(
            f"disk: about {disk / 1e9:.1f} GB needed, {free_disk / 1e9:.1f} GB free where the store is; "
            "free some, give --store a folder on a larger disk, or try fewer deploy points"
        )
    if memory > free_memory:
        found.append(
            f"memory: about {memory / 1e9:.1f} GB needed for {hungriest}, {free_memory / 1e9:.1f} GB free; "
            f"{_MEMORY_HELP[hungriest]}"
        )
    return tuple(found)


_MEMORY_HELP = {
    "training": "a smaller batch_size, shorter rows, base_precision nf4 or a smaller model needs less",
    "the template": "ending other programs or a smaller model helps",
    "a deploy point": "ending other programs or a smaller model helps",
    "measuring": "int8 or int4 deploy points alone or a smaller model needs less",
}


def layer_parameters(facts: ModelFacts) -> int:
    """All but embedding and head: what an adapter changes (norms, a thousandth, included)."""
    return facts.parameters - facts.embedding_parameters * (1 if facts.tied else 2)


def assembly_seconds(point: DeployParams, changed: float) -> float:
    """Making an adapter's artifact at the point, of so many changed weights."""
    return _ASSEMBLY_S_PER_1E8[_kind(point)] * changed / 1e8


def _bits(point: DeployParams) -> float:
    bits = _BITS[point.precision]
    if point.precision in QUANTIZED:
        bits += 32 / point.block_size + (0 if point.symmetric else 8 / point.block_size)
    return bits


def _kind(point: DeployParams) -> str:
    return point.algorithm if point.precision in QUANTIZED else "float"


def _largest_missing(facts: ModelFacts, points: Sequence[DeployParams], have: int) -> list[DeployParams]:
    """Which points the store holds is not asked: the largest count as missing, so that nothing is promised."""
    ordered = sorted(points, key=lambda p: artifact_bytes(facts, p), reverse=True)
    return ordered[: max(0, len(points) - have)]


def _once_seconds(
    facts: ModelFacts, missing: Sequence[DeployParams], base_bytes: float, have_template: bool
) -> float:
    base = _BASE_S_PER_GB * base_bytes / 1e9
    template = 0.0 if have_template else _TEMPLATE_S_PER_GB * facts.parameters * 4 / 1e9
    return base + template + sum(_POINT_S_PER_1E9[_kind(p)] for p in missing) * facts.parameters / 1e9


def _training_seconds(
    facts: ModelFacts, data: TokenizedData, epochs: float, steps: int | None, batch_size: int, gflops: float
) -> float:
    every = sum(_length(e) for e in data.train)
    tokens = every * epochs if steps is None else every / max(1, len(data.train)) * batch_size * steps
    body = facts.parameters - facts.embedding_parameters
    # Forward 2, backward to the activations 2; the frozen weights need no gradient.
    return tokens * 4 * body / (gflops * 1e9 * _TRAINING_EFFICIENCY)


def _scoring_seconds(facts: ModelFacts, tokens: float, gflops: float) -> float:
    body = facts.parameters - facts.embedding_parameters
    return tokens * 2 * body / (gflops * 1e9 * _SCORING_EFFICIENCY)


def _finalist_seconds(
    facts: ModelFacts, data: TokenizedData, certifying: Certifying | None, request: int, gflops: float
) -> float:
    """``request`` is what one costs, in tokens of a prompt."""
    if certifying is None:
        return 0.0
    timed = _scoring_seconds(facts, _TURNS * certifying.requests * request, gflops) + _FIXED_S_PER_TRIAL
    asked = _scoring_seconds(facts, sum(len(e.prompt) for e in data.test), gflops)
    return min(timed, certifying.max_seconds) + certifying.sustain_seconds + asked + 2 * _FIXED_S_PER_TRIAL


def _assembly_seconds(facts: ModelFacts, points: Sequence[DeployParams]) -> float:
    """The mean over the points."""
    return sum(assembly_seconds(p, layer_parameters(facts)) for p in points) / max(1, len(points))


def _study_disk(
    facts: ModelFacts, points: Sequence[DeployParams], missing: Sequence[DeployParams], adapters: int, trials: int,
    have_template: bool,
) -> float:
    template = 0.0 if have_template else template_bytes(facts)
    trained = adapters * _ADAPTER_SHARE * layer_parameters(facts) * 4
    changed = sorted((changed_bytes(facts, p) for p in points), reverse=True)
    kept = sorted(changed * _KEPT_PER_POINT, reverse=True)[:trials]
    # One more is there while it is measured, before it is known to be off the front.
    return template + sum(artifact_bytes(facts, p) for p in missing) + trained + sum(kept) + max(changed, default=0)


def _memory(
    facts: ModelFacts, data: TokenizedData, points: Sequence[DeployParams], batch_size: int,
    base_precision: BasePrecision, make_points: bool, have_template: bool,
) -> dict[str, float]:
    """Stage → bytes at its peak, of the stages that are still to run."""
    matrix = facts.embedding_parameters * 4.0
    stages = {
        "training": _training_memory(facts, data.train, batch_size, base_precision),
        "measuring": _PROCESS_BYTES + max((_session_bytes(facts, p) for p in points), default=0.0),
    }
    if make_points:
        stages["a deploy point"] = 2 * matrix + _PROCESS_BYTES
    if not have_template:
        stages["the template"] = facts.parameters * 4 + 2 * matrix + _PROCESS_BYTES
    return stages


def _training_memory(
    facts: ModelFacts, rows: Sequence[Example], batch_size: int, precision: BasePrecision
) -> float:
    layers = layer_parameters(facts)
    beside = (facts.parameters - layers) * (2 if precision == "bf16" else 4)
    longest = max((_length(e) for e in rows), default=0)
    answers = max((len(e.answer) for e in rows), default=0)
    activations = batch_size * longest * facts.layers * facts.hidden * _ACTIVATIONS_PER_HIDDEN * 4
    logits = min(_MAX_LOGITS, batch_size * answers * facts.vocab) * 4 * 3
    # The weights of the adapter, its gradient and AdamW's two moments.
    adapter = 4 * _ADAPTER_SHARE * layers * 4
    return layers * _TRAINING_BITS[precision] / 8 + beside + activations + logits + adapter + _PROCESS_BYTES


def _session_bytes(facts: ModelFacts, point: DeployParams) -> float:
    if point.precision in QUANTIZED:
        return _SESSION_COPIES * artifact_bytes(facts, point)
    return _SESSION_COPIES * facts.parameters * 4


def _length(example: Example) -> int:
    return len(example.prompt) + len(example.answer)
