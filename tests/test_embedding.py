"""The quantized embedding gives what its head's bits say, and saves what it should."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import transformers

from autotune.errors import AssemblyError
from autotune.pipeline import builder, graph, weight_files
from autotune.pipeline.embedding import quantize_embedding
from autotune.pipeline.encode import Encoding
from autotune.pipeline.weight_storage import quantize_matmuls
from search_spaces.deploy import DeployParams
from tests.running import (
    build,
    builder_options,
    data_of,
    logits,
    model_of,
    operators,
    torch_logits,
)


def test_shared_embedding_is_the_builders_where_it_has_one(tmp_path):
    """At symmetric int4 the builder shares a tied embedding itself: the same logits to the last bit."""
    source = model_of("qwen3")
    info = build(source, tmp_path / "ours", DeployParams("int4"), "cpu", None)
    builder.build(source, tmp_path / "theirs", "int4", "cpu", builder_options(DeployParams("int4"), shared=True))
    assert "GatherBlockQuantized" in operators(tmp_path / "theirs")
    np.testing.assert_array_equal(logits(tmp_path / "theirs"), logits(info.path))


@pytest.mark.parametrize("architecture", ["llama", "llama_untied"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_embedding_reads_what_the_quantized_rows_say(architecture, bits, symmetric, tmp_path):
    """Hidden 80 in blocks of 32: three blocks a row, the last half full, so zero points are padded too."""
    source = model_of(architecture, hidden_size=80, num_attention_heads=5, num_key_value_heads=1)
    params = DeployParams("int8" if bits == 8 else "int4", symmetric=symmetric)
    info = build(source, tmp_path / "a", params, "cpu", 128)
    found = _run_embedding(info.path)
    stored = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    exact = stored.get_input_embeddings().weight.detach().numpy()
    assert found.shape == exact.shape
    step = (exact.max() - exact.min()) / (2**bits - 1)
    assert np.abs(found - exact).max() <= step
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > (0.9999 if bits == 8 else 0.98)


def _run_embedding(folder: Path) -> np.ndarray:
    """All rows of the embedding, read by ONNX Runtime out of the artifact's own nodes."""
    model = onnx.load(folder / "model.onnx")
    nodes = [n for n in model.graph.node if n.name.startswith("/model/embed_tokens/")]
    needed = {name for node in nodes for name in node.input}
    nodes = [n for n in model.graph.node if n.op_type == "Constant" and n.output[0] in needed] + nodes
    small = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes, "embedding",
            [onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["b", "s"])],
            [onnx.helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, None)],
            [t for t in model.graph.initializer if t.name in needed],
        ),
        opset_imports=model.opset_import, ir_version=model.ir_version,
    )
    session = ort.InferenceSession(small.SerializeToString(), providers=["CPUExecutionProvider"])
    vocabulary = json.loads((folder / "genai_config.json").read_text())["model"]["vocab_size"]
    return session.run(None, {"input_ids": np.arange(vocabulary)[None]})[0][0]


def test_embedding_stays_float_when_not_shared(tmp_path):
    params = DeployParams("int8", share_embedding=False)
    info = build(model_of("llama"), tmp_path / "a", params, "cpu", 128)
    assert "GatherBlockQuantized" not in operators(info.path)
    assert data_of(info.path)["model.embed_tokens.weight"].dtype == np.float32


def test_shared_embedding_saves_the_float_one(tmp_path):
    source = model_of("llama", vocab_size=8192)
    shared = build(source, tmp_path / "a", DeployParams("int8"), "cpu", 128)
    apart = build(source, tmp_path / "b", DeployParams("int8", share_embedding=False), "cpu", 128)
    assert apart.size_bytes - shared.size_bytes == pytest.approx(8192 * 64 * 4, rel=0.01)
    expected = torch_logits(source)
    for info in (shared, apart):
        assert np.corrcoef(expected, logits(info.path))[0, 1] > 0.995


def test_quantize_embedding_refuses_a_graph_without_a_quantized_head(tmp_path):
    builder.build(model_of("llama_untied"), tmp_path / "b", "fp32", "cpu", {})
    model = graph.load(tmp_path / "b")
    with pytest.raises(AssemblyError, match="no quantized head"):
        quantize_embedding(model, is_tied=False)
    quantize_matmuls(model, Encoding("nbits", 8, 32), 4, {})
    assert quantize_embedding(model, is_tied=False)
    assert not quantize_embedding(model, is_tied=False)
    weight_files.save(model, tmp_path, lambda name: None)
