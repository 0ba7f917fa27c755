"""Training teaches the answers and nothing else, the same way each time, and says so when it cannot."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from autotune.errors import BaseModelError, TrainingError
from autotune.pipeline import batching
from autotune.pipeline.architectures import target_modules
from autotune.pipeline.frozen_base import load_frozen
from autotune.pipeline.packed.stack import Stack
from autotune.pipeline.tokens import Example, TokenizedData
from autotune.pipeline.train import (
    evaluate_loss,
    supported_base_precisions,
    train_adapter,
)
from search_spaces.adapter import TARGET_GROUPS, AdapterParams
from tests import tiny

EOS = 1
ROWS = [
    ("what a lovely morning", "joy"),
    ("nobody came to the station and the train had already left", "sadness"),
    ("Is somebody there?", "fear"),
    ("wait, you did WHAT with 42 potatoes?", "surprise"),
    ("the lazy dog jumps", "joy"),
    ("The door was locked a minute ago...", "fear"),
]
PARAMS = AdapterParams(rank=8, alpha=16, learning_rate=2e-2, steps=12, batch_size=4)


def _examples() -> tuple[Example, ...]:
    tok = tiny.tokenizer()

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tok(text, add_special_tokens=False)["input_ids"])

    prompts = [(f"### Text: {phrase}\n### The tone is:\n", tone) for phrase, tone in ROWS]
    return tuple(Example(ids(p), (*ids(a), EOS), p, a) for p, a in prompts)


EXAMPLES = _examples()
DATA = TokenizedData("choice", False, EOS, EXAMPLES, EXAMPLES, ())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: tiny.make_model(root / name, name) for name in tiny.ARCHITECTURES}


def _adapted(base: Path, seed: int = 0) -> tuple[torch.nn.Module, peft.PeftModel]:
    """A model with LoRA matrices that already do something, dropout-free."""
    model = load_frozen(base, "fp32", "cpu")
    config = peft.LoraConfig(r=4, target_modules=target_modules(base, "all-linear"))
    adapted = peft.get_peft_model(model, config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model, adapted


def _naive_loss(model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
    """Logits everywhere by the model's own forward, with an attention mask and labels on answers."""
    width = max(len(e.prompt) + len(e.answer) for e in examples)
    ids, mask, labels = (torch.full((len(examples), width), fill) for fill in (0, 0, -100))
    for i, e in enumerate(examples):
        end = len(e.prompt) + len(e.answer)
        ids[i, :end] = torch.tensor(e.prompt + e.answer)
        mask[i, :end] = 1
        labels[i, len(e.prompt) : end] = torch.tensor(e.answer)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())


def _gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("max_logits", [1 << 26, 1500])
@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_loss_and_gradients_equal_those_of_full_logits(
    models: dict[str, Path], name: str, max_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_MAX_LOGITS", max_logits)  # the small one: in chunks of 3 positions
    model, _ = _adapted(models[name])
    naive = _naive_loss(model, EXAMPLES)
    naive.backward()
    expected = naive.item()
    wanted = _gradients(model)
    model.zero_grad()
    loss = batching.backward_answer_loss(model, batching.make_batch(EXAMPLES))
    found = _gradients(model)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert found.keys() == wanted.keys()
    assert len(found) == 2 * 2 * len(target_modules(models[name], "all-linear"))
    for key, gradient in wanted.items():
        close = 1e-5 * float(gradient.abs().max() + 1)
        assert torch.allclose(found[key], gradient, rtol=1e-3, atol=close), key
    assert evaluate_loss(model, EXAMPLES, batch_size=4) == pytest.approx(expected, rel=1e-5)


def test_final_softcapping_is_part_of_the_loss(tmp_path: Path) -> None:
    base = tiny.make_model(tmp_path / "base", "gemma3", final_logit_softcapping=2.0)
    model, _ = _adapted(base)
    loss = batching.backward_answer_loss(model, batching.make_batch(EXAMPLES))
    assert loss == pytest.approx(_naive_loss(model, EXAMPLES).item(), rel=1e-5)


def test_texts_longer_than_the_sliding_window_give_the_same_loss(tmp_path: Path) -> None:
    base = tiny.make_model(tmp_path / "base", "gemma3", sliding_window=8)
    model, _ = _adapted(base)
    loss = batching.backward_answer_loss(model, batching.make_batch(EXAMPLES))
    assert loss == pytest.approx(_naive_loss(model, EXAMPLES).item(), rel=1e-5)


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_every_architecture_learns_and_loads_in_stock_peft(
    models: dict[str, Path], name: str, tmp_path: Path
) -> None:
    result = train_adapter(models[name], DATA, PARAMS, tmp_path / "out", seed=0, device="cpu")
    assert result.steps == len(result.losses) == 12
    assert result.valid_loss < 0.9 * result.losses[0]
    base = AutoModelForCausalLM.from_pretrained(models[name])
    loaded = peft.PeftModel.from_pretrained(base, result.adapter)
    assert evaluate_loss(loaded.base_model.model, EXAMPLES) == pytest.approx(result.valid_loss, rel=1e-4)


def test_the_saved_adapter_gives_the_logits_it_had(models: dict[str, Path], tmp_path: Path) -> None:
    ids = torch.tensor([EXAMPLES[0].prompt])
    train_adapter(models["llama"], DATA, PARAMS, tmp_path / "a", seed=0, device="cpu")
    stock = AutoModelForCausalLM.from_pretrained(models["llama"])
    with torch.no_grad():
        before = stock(ids).logits
        loaded = peft.PeftModel.from_pretrained(stock, tmp_path / "a")
        unmerged = loaded(ids).logits
        merged = loaded.merge_and_unload()(ids).logits
    assert torch.allclose(unmerged, merged, atol=1e-4)
    assert float((unmerged - before).abs().max()) > 0.1


def test_the_adapter_folder_names_no_path_and_holds_no_pickle(
    models: dict[str, Path], tmp_path: Path
) -> None:
    train_adapter(models["llama"], DATA, replace(PARAMS, steps=1), tmp_path / "a", seed=0, device="cpu")
    text = (tmp_path / "a" / "adapter_config.json").read_text()
    config = json.loads(text)
    assert str(models["llama"].parent) not in text
    assert config["base_model_name_or_path"] == "llama"
    assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (8, 16, True)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("group", TARGET_GROUPS)
@pytest.mark.parametrize("name", ["llama", "phi3"])
def test_a_group_adapts_its_modules_in_every_layer(
    models: dict[str, Path], name: str, group: str, tmp_path: Path
) -> None:
    params = replace(PARAMS, steps=2, targets=group)
    result = train_adapter(models[name], DATA, params, tmp_path, seed=0, device="cpu")
    tensors = load_file(result.adapter / "adapter_model.safetensors")
    touched = {key.split(".lora_")[0].rsplit(".", 1)[-1] for key in tensors}
    assert touched == set(target_modules(models[name], params.targets))
    assert len(tensors) == 2 * 2 * len(touched)  # A and B in two layers
    assert all(t.dtype == torch.float32 for t in tensors.values())
    assert all(float(t.abs().max()) > 0 for t in tensors.values())


def test_equal_seeds_give_equal_adapters_and_leave_the_random_state(
    models: dict[str, Path], tmp_path: Path
) -> None:
    params = replace(PARAMS, steps=6, dropout=0.1)
    torch.manual_seed(99)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    files = []
    for i, seed in enumerate((3, 3, 4)):
        train_adapter(models["qwen3"], DATA, params, tmp_path / str(i), seed=seed, device="cpu", threads=2)
        files.append((tmp_path / str(i) / "adapter_model.safetensors").read_bytes())
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.get_num_threads() == threads
        torch.randn(3)
        state = torch.random.get_rng_state()
    assert files[0] == files[1]
    assert files[0] != files[2]


@pytest.mark.parametrize("variant", ["rslora", "dora"])
def test_variants_train_and_say_so_in_the_adapter(
    models: dict[str, Path], variant: str, tmp_path: Path
) -> None:
    params = replace(PARAMS, variant=variant)
    result = train_adapter(models["llama"], DATA, params, tmp_path, seed=0, device="cpu")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["use_rslora"], config["use_dora"]) == (variant == "rslora", variant == "dora")
    assert result.valid_loss < 0.9 * result.losses[0]
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert any("magnitude" in key for key in tensors) == (variant == "dora")


@pytest.mark.parametrize("variant", ["lora", "dora"])
@pytest.mark.parametrize("precision", ["nf4", "int8", "bf16"])
def test_every_base_precision_trains_all_layers_after_an_evaluation(
    models: dict[str, Path], precision: str, variant: str, tmp_path: Path
) -> None:
    reason = supported_base_precisions("cpu")[precision]
    if reason is not None:
        pytest.skip(reason)
    params = replace(PARAMS, base_precision=precision, variant=variant)
    result = train_adapter(models["llama"], DATA, params, tmp_path, seed=0, device="cpu")
    assert [step for step, _ in result.curve] == [3, 6, 9, 12]
    assert result.valid_loss < 0.7 * result.losses[0]
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert all(t.dtype == torch.float32 for t in tensors.values())


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_evaluating_a_quantized_base_changes_no_gradient(models: dict[str, Path], precision: str) -> None:
    model = load_frozen(models["llama"], precision, "cpu")
    peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    batching.set_training(model, True)
    batch = batching.make_batch(EXAMPLES)
    gradients = []
    for _ in range(2):
        batching.backward_answer_loss(model, batch)
        gradients.append(_gradients(model))
        model.zero_grad()
        evaluate_loss(model, EXAMPLES)
    assert all(torch.equal(gradients[0][key], gradients[1][key]) for key in gradients[0])
    assert type(model.lm_head) is torch.nn.Linear


def test_bf16_is_refused_where_it_is_slow(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotune.pipeline.frozen_base._cpu_features", lambda: {"avx2"})
    params = replace(PARAMS, base_precision="bf16")
    with pytest.raises(TrainingError, match="base_precision bf16: this CPU has no fast bf16"):
        train_adapter(models["llama"], DATA, params, tmp_path / "a", seed=0, device="cpu")
    assert not (tmp_path / "a").exists()


def test_the_end_of_sequence_is_learnt(models: dict[str, Path], tmp_path: Path) -> None:
    batch = batching.make_batch(EXAMPLES)
    assert int((batch.target == EOS).sum()) == len(EXAMPLES)
    params = replace(PARAMS, steps=40)
    train_adapter(models["llama"], DATA, params, tmp_path, seed=0, device="cpu")
    base = AutoModelForCausalLM.from_pretrained(models["llama"])
    model = peft.PeftModel.from_pretrained(base, tmp_path)
    for example in EXAMPLES:
        ids = torch.tensor([example.prompt + example.answer[:-1]])
        with torch.no_grad():
            assert int(model(ids).logits[0, -1].argmax()) == EOS


@pytest.mark.parametrize(("rate", "words"), [(1e30, r"became (nan|inf)"), (1.0, "diverged")])
def test_a_blow_up_ends_in_a_training_error(
    models: dict[str, Path], tmp_path: Path, rate: float, words: str
) -> None:
    # A base that knows the answers, as only such a one has much to lose.
    train_adapter(models["llama"], DATA, replace(PARAMS, steps=80), tmp_path / "a", seed=0, device="cpu")
    taught = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(models["llama"]), tmp_path / "a"
    )
    taught.merge_and_unload().save_pretrained(tmp_path / "base")
    params = replace(PARAMS, learning_rate=rate, steps=40)
    with pytest.raises(TrainingError, match=words) as caught:
        train_adapter(tmp_path / "base", DATA, params, tmp_path / "b", seed=0, device="cpu")
    for part in (f"learning rate {rate:g}", "of 40", "at the first step"):
        assert part in caught.value.reason
    assert "\n" not in caught.value.reason
    assert not (tmp_path / "b").exists()


def test_an_infinite_gradient_is_never_saved(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stack, "clip", lambda stack: torch.full((stack.count,), float("inf")))
    with pytest.raises(TrainingError, match="gradient became inf at step 1 of 1"):
        train_adapter(models["llama"], DATA, replace(PARAMS, steps=1), tmp_path / "a", seed=0, device="cpu")
    assert not (tmp_path / "a").exists()


def test_out_of_memory_is_a_training_error(models: dict[str, Path], tmp_path: Path) -> None:
    # 64-wide LoRA matrices of this rank need some 10^14 bytes.
    params = replace(PARAMS, rank=10**12)
    with pytest.raises(TrainingError, match=r"out of memory.*batch size 4, rank 1000000000000"):
        train_adapter(models["llama"], DATA, params, tmp_path / "a", seed=0, device="cpu")


def test_an_unsupported_model_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(BaseModelError, match="GPT2LMHeadModel"):
        train_adapter(tmp_path, DATA, PARAMS, tmp_path / "a", seed=0, device="cpu")


def test_no_training_rows(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no training rows"):
        train_adapter(models["llama"], replace(DATA, train=()), PARAMS, tmp_path, seed=0)


def test_every_example_is_in_an_epoch_once_with_its_like() -> None:
    lengths = [10 + (i * 37) % 90 for i in range(203)]
    batches = batching.plan_epoch(lengths, 8, seed=1, epoch=0)
    assert sorted(i for b in batches for i in b) == list(range(203))
    assert sorted({len(b) for b in batches}) == [203 % 8, 8]
    padded = sum(max(lengths[i] for i in b) * len(b) for b in batches)
    assert padded < 1.1 * sum(lengths)
    assert batches == batching.plan_epoch(lengths, 8, seed=1, epoch=0)
    assert batches != batching.plan_epoch(lengths, 8, seed=1, epoch=1)
    assert batches != batching.plan_epoch(lengths, 8, seed=2, epoch=0)


def test_steps_win_over_epochs_and_epochs_may_be_fractions() -> None:
    assert replace(PARAMS, steps=7, epochs=99.0).training_steps(1000) == 7
    by_epochs = replace(PARAMS, steps=None, batch_size=8)
    assert replace(by_epochs, epochs=2.0).training_steps(20) == 6
    assert replace(by_epochs, epochs=0.5).training_steps(80) == 5
    assert replace(by_epochs, epochs=0.01).training_steps(8) == 1


def test_progress_names_step_and_loss_and_third_parties_are_silent(
    models: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[float, float, str]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for precision in ("fp32", "nf4", "int8"):
            params = replace(PARAMS, steps=8, base_precision=precision)
            result = train_adapter(
                models["gemma2"], DATA, params, tmp_path / precision, seed=0, device="cpu",
                report=lambda done, total, note="": calls.append((done, total, note)),
            )  # fmt: skip
    assert [c[:2] for c in calls] == [(i, 8) for i in range(1, 9)] * 3
    assert calls[-1][2] == f"step 8/8 loss {result.losses[-1]:.2f}"
    assert capfd.readouterr() == ("", "")


def test_tokens_count_no_padding(models: dict[str, Path], tmp_path: Path) -> None:
    params = replace(PARAMS, steps=None, epochs=3.0)
    result = train_adapter(models["llama"], DATA, params, tmp_path, seed=0, device="cpu")
    assert result.steps == 6
    assert result.tokens == 3 * sum(len(e.prompt) + len(e.answer) for e in EXAMPLES)
