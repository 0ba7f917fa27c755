"""The folder alone says what a model is, what LoRA adapts in it and how large it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from autotune.errors import BaseModelError
from autotune.pipeline.architectures import read_facts, require_supported, target_modules
from search_spaces.adapter import TARGET_GROUPS
from tests import tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: tiny.make_model(root / name, name) for name in tiny.ARCHITECTURES}


def _write_config(folder: Path, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_the_groups_name_the_linear_layers_of_every_architecture(models: dict[str, Path], name: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(models[name]))
    linear = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    groups = {group: set(target_modules(models[name], group)) for group in TARGET_GROUPS}
    assert groups["all-linear"] == linear - {"lm_head"}
    assert groups["attention"] | groups["mlp"] == groups["all-linear"]
    assert not groups["attention"] & groups["mlp"]
    assert groups["qv"] < groups["attention"]


def test_qv_of_a_fused_projection_is_the_whole_of_it(models: dict[str, Path]) -> None:
    assert target_modules(models["phi3"], "qv") == ["qkv_proj"]
    assert target_modules(require_supported(models["llama"]), "qv") == ["q_proj", "v_proj"]


def test_an_unknown_group_names_those_there_are(models: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"'everything'.*attention, mlp, all-linear, qv"):
        target_modules(models["llama"], "everything")  # type: ignore[arg-type]


def test_an_unsupported_model_is_refused_by_name(tmp_path: Path) -> None:
    folder = _write_config(tmp_path, architectures=["MixtralForCausalLM"], model_type="mixtral")
    with pytest.raises(BaseModelError, match=r"config\.json.*MixtralForCausalLM") as caught:
        require_supported(folder)
    for family in ("LlamaForCausalLM", "Qwen2/2.5", "Phi-3", "Gemma 2", "SmolLM3", "Granite"):
        assert family in str(caught.value)


def test_multimodal_gemma_points_to_the_text_checkpoint(tmp_path: Path) -> None:
    folder = _write_config(tmp_path, architectures=["Gemma3ForConditionalGeneration"], model_type="gemma3")
    with pytest.raises(BaseModelError, match=r"text-only checkpoints \(Gemma3ForCausalLM\)"):
        require_supported(folder)


def test_without_a_class_name_the_model_type_decides(tmp_path: Path) -> None:
    folder = _write_config(tmp_path, model_type="qwen3")
    assert require_supported(folder).name == "Qwen3ForCausalLM"
    with pytest.raises(BaseModelError, match=r"model_type.*'gpt2'"):
        require_supported(_write_config(tmp_path, model_type="gpt2"))


def test_a_quantized_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = _write_config(
        tmp_path, architectures=["LlamaForCausalLM"], quantization_config={"quant_method": "gptq"}
    )
    with pytest.raises(BaseModelError, match=r"quantization_config.*gptq.*unquantized"):
        require_supported(folder)


@pytest.mark.parametrize("text", [None, "{", "[]", '"llama"'])
def test_a_folder_that_is_no_model_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(BaseModelError, match=r"config\.json.*accepted: a"):
        require_supported(tmp_path)


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_facts_are_those_of_the_loaded_model(models: dict[str, Path], name: str) -> None:
    facts = read_facts(models[name])
    model = AutoModelForCausalLM.from_pretrained(models[name])
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert facts.embedding_parameters == model.get_input_embeddings().weight.numel()
    assert facts.tied == (model.lm_head.weight is model.get_input_embeddings().weight)
    assert (facts.layers, facts.hidden, facts.vocab) == (2, 64, model.config.vocab_size)
    assert facts.context_length == model.config.max_position_embeddings
    assert facts.sliding_window == getattr(model.config, "sliding_window", None)


def test_a_tied_head_stored_twice_counts_once(models: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(models["llama"], tmp_path / "twice")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert read_facts(folder) == read_facts(models["llama"])


def test_weights_in_several_files_count_together(models: dict[str, Path], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(models["qwen2"])
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert read_facts(tmp_path) == read_facts(models["qwen2"])


def test_missing_and_cut_off_weights_are_named(models: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(models["llama"], tmp_path / "cut")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for length in (0, 4, 100, len(whole) - 1):
        weights.write_bytes(whole[:length])
        with pytest.raises(BaseModelError, match=r"model\.safetensors.*complete safetensors file"):
            read_facts(folder)
    weights.unlink()
    with pytest.raises(BaseModelError, match=r"no model\*\.safetensors"):
        read_facts(folder)


def test_reading_a_folder_needs_no_torch(models: dict[str, Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from autotune.pipeline.architectures import read_facts; "
        f"read_facts(Path({str(models['gemma3'])!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
