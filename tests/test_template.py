"""One template for every precision and adapter: the artifact is the one that a full ModelBuilder build gives."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from autotune.errors import AssemblyError
from autotune.pipeline import builder
from autotune.pipeline.architectures import require_supported, target_modules
from autotune.pipeline.assemble import assemble
from autotune.pipeline.point import bits_of, make_point
from autotune.pipeline.template import make_template
from autotune.pipeline.template_params import TemplateParams, template_params
from search_spaces.deploy import DeployParams
from tests import tiny
from tests.adapters import load, make_adapter, merge_with_peft
from tests.running import PROMPT, builder_options, data_of, full_build, graph_of, logits, model_of

CONTEXT = 256
POINTS = [
    DeployParams("fp32"), DeployParams("fp16"), DeployParams("int8"), DeployParams("int8", symmetric=False),
    DeployParams("int4"), DeployParams("int4", symmetric=False), DeployParams("int4", block_size=64),
    DeployParams("int4", algorithm="k_quant"), DeployParams("int4", algorithm="rtn"),
    DeployParams("int4", int8_where="head"), DeployParams("int4", int8_where="mixed_layers"),
    DeployParams("int4", share_embedding=False), DeployParams("int4", prune_head=False),
]
#: fp16 on the CPU EP stores large matrices alone: wide enough that a layer's are.
WIDE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 8, "num_key_value_heads": 2}

_scratch = tempfile.TemporaryDirectory(prefix="templates-")


def folder() -> Path:
    return Path(tempfile.mkdtemp(dir=_scratch.name))


@functools.cache
def adapter_of(architecture: str, group: str = "all-linear", wide: bool = False) -> tuple[Path, Path, Path]:
    """(base, adapter, PEFT's merge of both)."""
    base = model_of(architecture, **(WIDE if wide else {}))
    targets = target_modules(require_supported(base), group)
    adapter, merged = folder() / "adapter", folder() / "merged"
    make_adapter(base, adapter, targets)
    return base, adapter, merge_with_peft(base, adapter, merged)


@functools.cache
def template_of(base: Path, params: TemplateParams) -> Path:
    out = folder() / "template"
    make_template(base, out, params)
    return out


def patched(base: Path, adapter: Path, params: DeployParams, provider: str = "cpu") -> Path:
    out = folder()
    made = template_of(base, template_params(params, provider, CONTEXT))
    make_point(made, base, out / "point", params, provider, CONTEXT)
    return assemble(out / "point", base, adapter, out / "artifact").path


def assert_same(ours: Path, theirs: Path) -> None:
    """The same graph and the same initializers, to the last bit, wherever they lie in files."""
    found, expected = data_of(ours), data_of(theirs)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].tobytes() == array.tobytes(), name
    assert graph_of(ours) == graph_of(theirs)
    for name in ("genai_config.json", "tokenizer_config.json", "tokenizer.json"):
        assert (ours / name).read_text() == (theirs / name).read_text()


@pytest.mark.parametrize("params", POINTS, ids=lambda p: p.label)
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_patched_template_is_a_full_build_of_the_merged_model(architecture, params):
    wide = params.precision == "fp16"
    base, adapter, merged = adapter_of(architecture, wide=wide)
    ours = patched(base, adapter, params)
    assert_same(ours, full_build(merged, folder() / "full", params, CONTEXT))
    assert np.isfinite(logits(ours)).all()


@pytest.mark.parametrize("params", [DeployParams("fp16"), DeployParams("bf16"), DeployParams("int4"),
                                    DeployParams("int8")], ids=lambda p: p.label)
@pytest.mark.parametrize("architecture", ["llama", "llama_untied", "gemma3", "phi3", "qwen2"])
def test_so_it_is_for_cuda(architecture, params):
    base, adapter, merged = adapter_of(architecture)
    ours = patched(base, adapter, params, "cuda")
    assert_same(ours, full_build(merged, folder() / "full", params, CONTEXT, "cuda"))
    graph = onnx.load(ours / "model.onnx", load_external_data=False).graph
    made = {name for node in graph.node for name in node.output}
    assert {output.name for output in graph.output} <= made  # what ModelBuilder writes for fp32 lacks the cache's


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_so_it_is_where_query_key_and_value_stay_apart(architecture):
    base, adapter, merged = adapter_of(architecture)
    ours = patched(base, adapter, DeployParams("int4"), "dml")
    assert [name for name in data_of(ours) if ".q_proj." in name]
    assert_same(ours, full_build(merged, folder() / "full", DeployParams("int4"), CONTEXT, "dml"))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int4"])
def test_a_bf16_base_gives_the_same(precision):
    base = tiny.make_model(folder() / "base", "llama_untied", **WIDE)
    load(base, torch.bfloat16).save_pretrained(base)
    adapter = folder() / "adapter"
    make_adapter(base, adapter, ("q_proj", "down_proj"))
    merged = merge_with_peft(base, adapter, folder() / "merged")
    params = DeployParams(precision)
    assert_same(patched(base, adapter, params), full_build(merged, folder() / "full", params, CONTEXT))


@pytest.mark.parametrize("params", POINTS[:3] + POINTS[4:5], ids=lambda p: p.label)
def test_an_artifact_costs_what_changed(params):
    base, adapter, _ = adapter_of("llama", "attention", wide=True)
    out = folder()
    made = template_of(base, template_params(params, "cpu", CONTEXT))
    make_point(made, base, out / "point", params, "cpu", CONTEXT)
    info = assemble(out / "point", base, adapter, out / "artifact")
    point = {f.name: f for f in (out / "point" / "artifact").iterdir()}
    own = [f.name for f in info.path.iterdir() if f.stat().st_ino != point[f.name].stat().st_ino]
    assert own == ["model.attention.data"]
    assert (info.path / own[0]).stat().st_size == point[own[0]].stat().st_size
    assert (info.path / own[0]).read_bytes() != point[own[0]].read_bytes()


def test_query_and_value_alone_leave_the_rest_of_the_file_as_it_was():
    base, adapter, merged = adapter_of("gemma3", "qv")
    params = DeployParams("int4")
    assert_same(patched(base, adapter, params), full_build(merged, folder() / "full", params, CONTEXT))


def test_the_template_holds_no_layer_matrix():
    base = model_of("llama_untied", **WIDE)
    made = template_of(base, template_params(DeployParams("int4"), "cpu", CONTEXT))
    files = {f.name: f.stat().st_size for f in (made / "graph").iterdir() if f.suffix == ".data"}
    model = ir.load(made / "graph" / "model.onnx")
    layers = sum(v.const_value.nbytes for n, v in model.graph.initializers.items() if "_proj.MatMul" in n)
    outside = sum(v.const_value.nbytes for n, v in model.graph.initializers.items() if "_proj.MatMul" not in n)
    assert layers > 500_000
    assert sum(files.values()) < outside + 64 * 1024 * len(model.graph.initializers)


def test_weights_that_fp16_cannot_hold_are_said_so():
    base = model_of("llama", **WIDE)
    adapter = folder() / "adapter"
    make_adapter(base, adapter)
    from safetensors.torch import load_file, save_file

    path = adapter / "adapter_model.safetensors"
    tensors = {name: tensor * 1e4 for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(AssemblyError, match="beyond ±65504"):
        patched(base, adapter, DeployParams("fp16"))


def test_an_adapter_of_the_head_is_refused():
    base = model_of("llama_untied")
    adapter = folder() / "adapter"
    make_adapter(base, adapter, ("q_proj", "lm_head"))
    with pytest.raises(AssemblyError, match="lm_head"):
        patched(base, adapter, DeployParams("int4"))


def test_a_matrix_that_is_not_the_bases_is_kept_in_the_template(monkeypatch):
    """Should the builder ever fold a factor into a weight, the template must not write the plain one over it."""
    base, adapter, _ = adapter_of("llama")
    original = builder.build

    def scaled(model_dir, out, precision, provider, options, *, save):
        def fold(model, where):
            value = model.graph.initializers["model.layers.0.mlp.down_proj.MatMul.weight"]
            value.const_value = ir.Tensor(value.const_value.numpy() * 2, name=value.name)
            save(model, where)

        original(model_dir, out, precision, provider, options, save=fold)

    monkeypatch.setattr(builder, "build", scaled)
    out = folder()
    params = DeployParams("fp32")
    make_template(base, out / "template", template_params(params, "cpu", CONTEXT))
    make_point(out / "template", base, out / "point", params, "cpu", CONTEXT)
    with pytest.raises(AssemblyError, match=r"layers\.0\.mlp\.down_proj"):
        assemble(out / "point", base, adapter, out / "artifact")


@pytest.mark.parametrize("layers", [1, 2, 8, 18, 32])
@pytest.mark.parametrize("where", ["head", "mixed_layers"])
def test_int8_goes_where_the_builder_puts_it(layers, where, tmp_path):
    base = tiny.make_model(tmp_path / "m", "llama_untied", num_hidden_layers=layers)
    params = DeployParams("int4", int8_where=where)
    builder.build(base, tmp_path / "b", "int4", "cpu", builder_options(params))
    model = onnx.load(tmp_path / "b" / "model.onnx", load_external_data=False)
    eight = {n.name.removesuffix("_Q8") for n in model.graph.node if n.name.endswith("_Q8")}
    named = bits_of(params, layers)
    nodes = {n.name.rsplit("_Q", 1)[0] for n in model.graph.node if n.op_type == "MatMulNBits"}
    assert eight == set(named) & nodes
    assert eight


def test_a_plain_copy_of_the_folder_is_complete(tmp_path):
    import shutil

    base, adapter, _ = adapter_of("llama")
    ours = patched(base, adapter, DeployParams("int4"))
    expected = logits(ours)
    shutil.copytree(ours, tmp_path / "copy")
    np.testing.assert_array_equal(logits(tmp_path / "copy", PROMPT), expected)
