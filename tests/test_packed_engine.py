"""Adapters that train together are those that each would be alone, whatever happens to their company."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from autotune.errors import TrainingError
from autotune.pipeline import batching
from autotune.pipeline.frozen_base import load_frozen
from autotune.pipeline.packed import engine, pack
from autotune.pipeline.packed.engine import train_packed
from autotune.pipeline.packed.job import AdapterJob
from autotune.pipeline.recipe import TrainResult
from tests import tiny
from tests.packing import DIFFERENT, STOPS_AT, alone, distance, frozen, jobs, weights
from tests.test_train import DATA, EXAMPLES, PARAMS

MANY = [
    replace(PARAMS, rank=1 + i % 5, learning_rate=1e-3 * (1 + i), steps=5 + i % 4, dropout=0.1 * (i % 2))
    for i in range(16)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("models") / "llama", "llama")


def trained(found: list[TrainResult | TrainingError]) -> list[TrainResult]:
    assert not [str(result) for result in found if isinstance(result, TrainingError)]
    return [result for result in found if isinstance(result, TrainResult)]


def memory_for(count: int, monkeypatch: pytest.MonkeyPatch, from_step: int = 3) -> list[int]:
    """More than ``count`` adapters run out of memory from a step on; gives the sizes of all batches in order."""
    sizes: list[int] = []

    def limited(model: Any, batch: Any, parts: batching.Parts) -> torch.Tensor:
        sizes.append(len(parts.answers))
        if len(sizes) >= from_step and sizes[-1] > count:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batching.backward_answer_losses(model, batch, parts)

    monkeypatch.setattr(pack, "backward_answer_losses", limited)
    return sizes


@pytest.mark.parametrize("width", [5, 3, 2, 1, None])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_five_different_adapters_are_those_of_peft_in_fp64(name: str, width: int | None, tmp_path: Path) -> None:
    base = tiny.make_model(tmp_path / "base", name)
    model = frozen(base, torch.float64)
    wanted = jobs(tmp_path, until=STOPS_AT)
    found = trained(train_packed(model, base, DATA, wanted, width=width))
    for job, result in zip(wanted, found, strict=True):
        state, valid_loss, matrices = alone(model, base, job, tmp_path / "alone")
        steps = job.until or state.steps
        assert result.steps == len(result.losses) == steps
        assert torch.tensor(result.losses) == pytest.approx(torch.tensor(state.losses[:steps]), rel=1e-9)
        if job.until is None:
            assert distance(weights(job.out), matrices) < 1e-9
            assert result.valid_loss == pytest.approx(valid_loss, rel=1e-9)
            assert [step for step, _ in result.curve] == [step for step, _ in state.curve]
            assert [loss for _, loss in result.curve] == pytest.approx([loss for _, loss in state.curve], rel=1e-9)
            assert result.tokens == state.tokens


def test_losses_in_fp32_are_those_of_peft(base: Path, tmp_path: Path) -> None:
    model = frozen(base)
    wanted = jobs(tmp_path)
    for job, result in zip(wanted, trained(train_packed(model, base, DATA, wanted, width=5)), strict=True):
        state, valid_loss, _ = alone(model, base, job, tmp_path / "alone")
        assert result.losses == pytest.approx(state.losses, rel=1e-5)
        assert result.valid_loss == pytest.approx(valid_loss, rel=1e-5)


def test_adapters_on_an_nf4_base_are_those_of_peft(base: Path, tmp_path: Path) -> None:
    model = load_frozen(base, "nf4", "cpu")
    wanted = jobs(tmp_path, [replace(params, base_precision="nf4") for params in DIFFERENT[:3]])
    for job, result in zip(wanted, trained(train_packed(model, base, DATA, wanted, width=3)), strict=True):
        state, _, matrices = alone(model, base, job, tmp_path / "alone")
        assert result.losses == pytest.approx(state.losses, rel=1e-4)
        assert distance(weights(job.out), matrices) < 1e-2


def test_a_paused_adapter_goes_on_as_if_it_had_not_stopped(base: Path, tmp_path: Path) -> None:
    model = frozen(base, torch.float64)
    whole = [replace(job, until=None) for job in jobs(tmp_path / "whole")]
    straight = trained(train_packed(model, base, DATA, whole, width=5))
    paused = [replace(job, until=4) for job in jobs(tmp_path / "rung")]
    first = trained(train_packed(model, base, DATA, paused, width=5))
    assert {result.steps for result in first} == {4}
    rest = [replace(job, out=tmp_path / "rest" / job.out.name, until=None, resume=job.out) for job in paused]
    second = trained(train_packed(model, base, DATA, rest, width=2))
    for one, other in zip(second, straight, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-9)
        assert one.tokens == other.tokens
        assert [step for step, _ in one.curve] == [step for step, _ in other.curve]
        assert distance(weights(one.adapter), weights(other.adapter)) < 1e-9


def test_a_paused_adapter_loads_in_stock_peft(base: Path, tmp_path: Path) -> None:
    half = PARAMS.training_steps(len(DATA.train)) // 2
    (result,) = trained(train_packed(frozen(base), base, DATA, [AdapterJob(PARAMS, tmp_path / "a", 0, until=half)]))
    loaded = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "a")
    found = batching.evaluate_loss(loaded.base_model.model, EXAMPLES[::2])
    assert result.curve[-1] == (half, pytest.approx(found, rel=1e-4))
    assert math.isnan(result.valid_loss)  # what it is worth there is judged elsewhere


def test_out_of_memory_at_sixteen_goes_on_at_eight_and_loses_no_step(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = frozen(base, torch.float64)
    plain = trained(train_packed(model, base, DATA, jobs(tmp_path / "plain", MANY), width=16))
    sizes = memory_for(8, monkeypatch)
    found = trained(train_packed(model, base, DATA, jobs(tmp_path / "short", MANY), width=16))
    assert sizes[:3] == [16, 16, 16]
    assert max(sizes[3:]) == 8
    # Each adapter's steps are taken once; the third batch of sixteen was in vain.
    assert sum(sizes) == 16 + sum(params.steps or 0 for params in MANY)
    for one, other in zip(found, plain, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-9)
        assert distance(weights(one.adapter), weights(other.adapter)) < 1e-9


def test_an_adapter_that_does_not_fit_alone_fails_alone(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hungry = replace(PARAMS, rank=64, steps=6)

    def limited(model: Any, batch: Any, parts: batching.Parts) -> torch.Tensor:
        if model.model.layers[0].self_attn.q_proj.down.shape[1] == 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batching.backward_answer_losses(model, batch, parts)

    monkeypatch.setattr(pack, "backward_answer_losses", limited)
    found = train_packed(frozen(base), base, DATA, jobs(tmp_path, [PARAMS, hungry, PARAMS]), width=3)
    assert isinstance(found[1], TrainingError)
    assert "out of memory while training (batch size 4, rank 64" in found[1].reason
    assert trained([found[0], found[2]])
    assert not (tmp_path / "1").exists()


def test_one_that_diverges_costs_the_others_nothing(base: Path, tmp_path: Path) -> None:
    model = frozen(base, torch.float64)
    wild = replace(PARAMS, learning_rate=1e30)
    found = train_packed(model, base, DATA, jobs(tmp_path, [PARAMS, wild, DIFFERENT[1], PARAMS]), width=3)
    assert isinstance(found[1], TrainingError)
    assert "learning rate 1e+30" in found[1].reason
    for i in (0, 2, 3):
        job = jobs(tmp_path, [PARAMS, wild, DIFFERENT[1], PARAMS])[i]
        assert distance(weights(job.out), alone(model, base, job, tmp_path / "alone")[2]) < 1e-9
    assert not (tmp_path / "1").exists()


def test_places_that_become_free_are_filled_from_the_queue(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = memory_for(99, monkeypatch)
    wanted = jobs(tmp_path, [replace(PARAMS, steps=steps) for steps in (2, 7, 3, 2)])
    trained(train_packed(frozen(base), base, DATA, wanted, width=2))
    assert sizes == [2] * 7


def test_the_model_comes_back_as_it_was(base: Path, tmp_path: Path) -> None:
    model = frozen(base)
    before = {name: (type(module), id(module)) for name, module in model.named_modules()}
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def interrupt(done: float, total: float, note: str = "") -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_packed(model, base, DATA, jobs(tmp_path), width=2, report=interrupt)
    assert {name: (type(module), id(module)) for name, module in model.named_modules()} == before
    assert all(torch.equal(tensor, values[name]) for name, tensor in model.state_dict().items())


def test_seconds_are_shared_out_and_progress_counts_all_steps(base: Path, tmp_path: Path) -> None:
    calls: list[tuple[float, float, str]] = []
    wanted = jobs(tmp_path, [replace(PARAMS, steps=4), replace(PARAMS, steps=6)])
    found = trained(train_packed(
        frozen(base), base, DATA, wanted, width=2,
        report=lambda done, total, note="": calls.append((done, total, note)),
    ))  # fmt: skip
    assert [call[:2] for call in calls] == [(2, 10), (4, 10), (6, 10), (8, 10), (9, 10), (10, 10)]
    assert calls[0][2].startswith("2 at once, mean loss ")
    assert all(result.seconds > 0 for result in found)


def test_the_width_is_searched_on_a_cpu_and_is_one_for_rows_beyond_the_original_context(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = memory_for(99, monkeypatch)
    wanted = jobs(tmp_path, [replace(PARAMS, steps=12)] * 4)
    trained(train_packed(frozen(base), base, DATA, wanted))
    assert sizes[:5] == [1] * 5
    assert 2 in sizes
    sizes.clear()
    monkeypatch.setattr(engine, "depends_on_length", lambda config, longest: True)
    trained(train_packed(frozen(base), base, DATA, wanted))
    assert sizes == [1] * 48


def test_a_checkpoint_of_other_parameters_is_refused(base: Path, tmp_path: Path) -> None:
    model = frozen(base)
    trained(train_packed(model, base, DATA, [AdapterJob(PARAMS, tmp_path / "a", 0, until=3)]))
    other = AdapterJob(replace(PARAMS, rank=4), tmp_path / "b", 0, resume=tmp_path / "a")
    nothing = AdapterJob(PARAMS, tmp_path / "c", 0, resume=tmp_path / "nowhere")
    found = train_packed(model, base, DATA, [other, nothing, AdapterJob(PARAMS, tmp_path / "d", 0)], width=3)
    assert isinstance(found[0], TrainingError)
    assert "training_state.json: params: " in found[0].reason
    assert isinstance(found[1], TrainingError)
    assert "no checkpoint can be read" in found[1].reason
    assert trained(found[2:])


def test_a_finished_adapter_leaves_no_checkpoint(base: Path, tmp_path: Path) -> None:
    trained(train_packed(frozen(base), base, DATA, [AdapterJob(replace(PARAMS, steps=2), tmp_path / "a", 0)]))
    names = {file.name for file in (tmp_path / "a").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["r"] == PARAMS.rank
