"""The quantized matrices are those that ModelBuilder itself would write, or better than it can."""

from __future__ import annotations

import dataclasses
import platform

import numpy as np
import pytest

from autotune.pipeline import builder
from autotune.pipeline.quantize import quantize
from search_spaces.deploy import DeployParams
from tests.running import (
    build,
    builder_options,
    data_of,
    logits,
    model_of,
    torch_logits,
)


@pytest.mark.parametrize(
    "params", [DeployParams("int8"), DeployParams("int4"), DeployParams("int4", algorithm="rtn"),
               DeployParams("int4", symmetric=False), DeployParams("int4", int8_where="mixed_layers"),
               DeployParams("int8", symmetric=False), DeployParams("int4", algorithm="k_quant")],
    ids=lambda p: p.label,
)
@pytest.mark.parametrize("architecture", ["llama_untied", "gemma3"])
def test_quantized_matrices_are_the_builders_own(architecture, params, tmp_path):
    source = model_of(architecture)
    builder.build(source, tmp_path / "builder", params.precision, "cpu", builder_options(params))
    apart = dataclasses.replace(params, share_embedding=False)
    ours = build(source, tmp_path / "ours", apart, "cpu", None)
    expected, found = data_of(tmp_path / "builder"), data_of(ours.path)
    names = {_plain(name): name for name in expected if ".MatMul." in name}
    matrices = [name for name in found if ".MatMul." in name]
    assert len(matrices) == len(names) >= 18
    for name in matrices:
        theirs = expected[names[_plain(name)]]
        if params.algorithm == "k_quant":
            # Sums in another order may choose another of two equally good scales for a block.
            assert np.isclose(found[name].ravel(), theirs.ravel(), rtol=1e-3).mean() > 0.98
        else:
            np.testing.assert_array_equal(found[name].ravel(), theirs.ravel(), err_msg=name)


def _plain(name: str) -> str:
    """One name for what the builder calls differently by algorithm: weight_Q4G32, weight_scale, weight_zp."""
    stem, part = name.rsplit(".weight_", 1)
    return f"{stem}.{'q' if part.startswith('Q') else 'scale' if part.startswith('scale') else 'zero'}"


@pytest.mark.parametrize("algorithm", ["k_quant", "rtn"])
def test_an_odd_number_of_blocks_a_row_is_no_obstacle(algorithm, tmp_path):
    """ModelBuilder fails on these, as on a 640-wide model in blocks of 128."""
    source = model_of("llama", hidden_size=80, num_attention_heads=5, num_key_value_heads=1)
    params = DeployParams("int4", algorithm=algorithm, symmetric=algorithm == "k_quant")
    info = build(source, tmp_path / "a", params, "cpu", 128)
    assert np.corrcoef(torch_logits(source), logits(info.path))[0, 1] > 0.6


def _awkward(rows, columns, smallest):
    """Weights as models have them, and what rounds differently if any step is another's: halves, ties, zeros, signs."""
    matrix = np.random.default_rng(0).normal(0, 0.02, (rows, columns)).astype(np.float32)
    counted = np.arange(columns, dtype=np.float32)
    matrix[0] = 0
    matrix[1] = counted % 7 - 3
    matrix[2] = counted % 16
    matrix[3] = -matrix[2]
    matrix[4] = counted / 2 - 8
    matrix[5] = np.where(counted % 2, 1, -1)
    matrix[6], matrix[7] = 0.5, -0.5
    matrix[8] *= smallest
    matrix[9] = np.where(counted % 32 == 5, 3.0, 0)
    return matrix


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="elsewhere ORT may fuse a product and a sum")
@pytest.mark.parametrize(("rows", "columns"), [(3000, 256), (3000, 200), (8200, 48)])
@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_default_rounding_is_onnxruntimes_to_the_last_bit(dtype, bits, symmetric, block, rows, columns):
    from onnxruntime.capi import _pybind_state as kernels

    matrix = _awkward(rows, columns, 1e-3 if dtype == np.float16 else 1e-30).astype(dtype)
    blocks = -(-columns // block)
    packed = np.zeros((rows, blocks, block * bits // 8), np.uint8)
    scales = np.zeros((rows, blocks), dtype)
    zeros = np.zeros((rows, -(-blocks * bits // 8)), np.uint8)
    kernel = {4: kernels.quantize_matmul_4bits, 8: kernels.quantize_matmul_8bits}[bits]
    padded = np.pad(matrix, ((0, 0), (0, blocks * block - columns)))
    kernel(packed, np.ascontiguousarray(padded.T), scales, zeros, block, rows, columns, symmetric)

    ours = quantize(matrix, bits, block, symmetric, "default")
    np.testing.assert_array_equal(ours[0], packed)
    np.testing.assert_array_equal(ours[1].view(f"u{ours[1].itemsize}"), scales.view(f"u{scales.itemsize}"))
    if symmetric:
        assert ours[2] is None
    else:
        np.testing.assert_array_equal(ours[2], zeros)
