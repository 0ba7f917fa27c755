"""An adapter is the same one whatever its process did before, and the base is loaded once for many."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from autotune.errors import TrainingError
from autotune.pipeline import resident
from autotune.pipeline.frozen_base import supported_base_precisions
from autotune.pipeline.resident import frozen_base, release
from autotune.pipeline.tokens import TokenizedData
from autotune.pipeline.train import train_adapter
from search_spaces.adapter import AdapterParams
from tests import tiny
from tests.test_train import DATA

DORA = AdapterParams(
    rank=4, alpha=8, learning_rate=2e-2, steps=3, batch_size=4, targets="attention", variant="dora", dropout=0.1
)
LORA = replace(DORA, targets="all-linear", variant="lora")
RSLORA = replace(DORA, targets="mlp", variant="rslora", dropout=0.0)
DIVERGES = replace(LORA, learning_rate=1e30, steps=8)


@pytest.fixture(autouse=True)
def nothing_resident() -> Iterator[None]:
    release()
    yield
    release()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("models") / "gemma3", "gemma3")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An entry for each time that a model is read."""
    calls: list[Any] = []
    read = transformers.AutoModelForCausalLM.from_pretrained

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return read(*args, **kwargs)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", counted)
    return calls


def train(base: Path, out: Path, params: AdapterParams, data: TokenizedData = DATA) -> tuple[bytes, Any]:
    result = train_adapter(base, data, params, out, seed=1, device="cpu", threads=1)
    return (out / "adapter_model.safetensors").read_bytes(), (result.losses, result.valid_loss, result.curve)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4", "int8"])
def test_an_adapter_does_not_depend_on_those_trained_before(
    base: Path, precision: str, tmp_path: Path, loads: list[Any]
) -> None:
    reason = supported_base_precisions("cpu")[precision]
    if reason is not None:
        pytest.skip(reason)
    wanted = [replace(params, base_precision=precision) for params in (DORA, LORA, RSLORA)]
    fresh = []
    for params in wanted:
        release()
        fresh.append(train(base, tmp_path, params))
    loads.clear()
    release()
    assert [train(base, tmp_path, params) for params in wanted + wanted] == fresh + fresh
    assert len(loads) == 1


@pytest.mark.parametrize("error", [TrainingError("diverged"), KeyboardInterrupt(), RuntimeError("unforeseen")])
def test_a_training_that_ends_early_leaves_no_trace(
    base: Path, error: BaseException, tmp_path: Path, loads: list[Any]
) -> None:
    def raising(done: float, total: float, note: str = "") -> None:
        if done == 2:
            raise error

    fresh = train(base, tmp_path / "a", LORA)
    with pytest.raises(type(error)):
        train_adapter(base, DATA, DORA, tmp_path / "b", seed=1, device="cpu", report=raising)
    assert train(base, tmp_path / "a", LORA) == fresh
    assert len(loads) == (1 if isinstance(error, TrainingError) else 2)


def test_a_real_divergence_leaves_no_trace(base: Path, tmp_path: Path, loads: list[Any]) -> None:
    fresh = train(base, tmp_path / "a", LORA)
    with pytest.raises(TrainingError, match="loss"):
        train(base, tmp_path / "b", DIVERGES)
    assert train(base, tmp_path / "a", LORA) == fresh
    assert len(loads) == 1


def test_a_model_that_came_back_changed_is_not_lent_again(base: Path, loads: list[Any]) -> None:
    with frozen_base(base, "fp32", "cpu") as model, torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    with frozen_base(base, "fp32", "cpu") as model:
        model.model.layers[0] = torch.nn.Identity()
    with frozen_base(base, "fp32", "cpu") as model:
        assert type(model.model.layers[0]) is not torch.nn.Identity
    assert len(loads) == 3


def test_other_weights_in_the_same_folder_are_another_model(tmp_path: Path, loads: list[Any]) -> None:
    folder = tiny.make_model(tmp_path / "base", "llama", seed=0)
    before = train(folder, tmp_path / "a", LORA)
    tiny.make_model(folder, "llama", seed=1)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert train(folder, tmp_path / "a", LORA) != before
    assert len(loads) == 2


def test_at_most_one_is_kept_and_none_that_takes_much_of_the_memory(
    base: Path, loads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision in ("fp32", "nf4", "fp32"):
        with frozen_base(base, precision, "cpu"):
            pass
    assert len(loads) == 3
    monkeypatch.setattr(resident, "_MAX_SHARE", 1e-12)
    for _ in range(2):
        with frozen_base(base, "fp32", "cpu"):
            pass
    assert len(loads) == 4  # the one of before is lent once more, and then let go


def test_random_numbers_of_the_caller_go_on_as_if_nothing_was(base: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    for _ in range(2):
        torch.manual_seed(5)
        train(base, tmp_path, DORA)
        assert torch.equal(torch.rand(3), expected)


def test_data_are_parsed_once_until_their_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    DATA.save(file)
    first = TokenizedData.load(file)
    assert first == DATA
    assert TokenizedData.load(file) is first
    replace(DATA, train=DATA.train[:2]).save(file)
    assert len(TokenizedData.load(file).train) == 2
