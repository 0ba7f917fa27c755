"""k_quant agrees with ONNX Runtime's own quantizer where that one is right, and never fails on finite weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from onnxruntime.quantization.neural_compressor.weight_only import quant_tensor_k_quant_cpu
from safetensors.torch import load_file

from autotune.pipeline.k_quant import k_quant
from tests.running import model_of


def _weights(kind: str, n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(n, generator=generator)
    if kind == "normal":
        return normal * 0.02
    if kind == "off_center":
        return normal * 0.02 + 0.01
    if kind == "heavy_tails":  # Student's t with three degrees of freedom
        return 0.02 * normal / torch.randn(3, n, generator=generator).square().mean(0).sqrt()
    # Many base models come from a quantized file: their weights lie on a grid, and halves are common.
    steps = normal.reshape(-1, 32).abs().amax(1, keepdim=True) / 127
    return ((normal.reshape(-1, 32) / steps).round() * steps * 0.02).half().float().ravel()


def _theirs(x: torch.Tensor, bits: int) -> list[np.ndarray]:
    with np.errstate(all="ignore"):
        return quant_tensor_k_quant_cpu(x.numpy(), bits, x.shape[1])


def _ours(x: torch.Tensor, bits: int) -> list[np.ndarray]:
    return list(k_quant(x.numpy(), bits))


def _restored(rounded: list[np.ndarray]) -> np.ndarray:
    levels, scales, zeros = (part.astype(np.float64) for part in rounded)
    return (levels - zeros) * scales


def _error(x: torch.Tensor, rounded: list[np.ndarray]) -> np.ndarray:
    """Weighted squared error of each block."""
    exact = x.double().numpy()
    importance = np.sqrt(np.square(exact).mean(1, keepdims=True)) + np.abs(exact)
    return (importance * np.square(_restored(rounded) - exact)).sum(1)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("kind", ["normal", "off_center", "heavy_tails", "grid"])
def test_agrees_with_onnxruntime(kind, block, bits):
    x = _weights(kind, 2**18).reshape(-1, block)
    # A block whose weights all have one sign is rounded better here, see below.
    x = x[(x.amin(1) <= 0) & (x.amax(1) >= 0)]
    theirs, ours = _theirs(x, bits), _ours(x, bits)
    assert [part.shape for part in ours] == [part.shape for part in theirs]
    assert [part.dtype for part in ours] == [np.uint8, np.float32, np.uint8]
    assert (ours[0] == theirs[0]).mean() > 0.99
    # Which of two equally good scales is taken hangs on the last bit of a sum, and rounding the zero point then
    # makes one a little better or worse than the other: nothing on average.
    assert _error(x, ours).sum() == pytest.approx(_error(x, theirs).sum(), rel=5e-3)


@pytest.mark.parametrize("bits", [4, 8])
def test_agrees_with_onnxruntime_on_a_models_weights(bits):
    for name, weight in _matrices():
        theirs, ours = _theirs(weight, bits), _ours(weight, bits)
        assert (ours[0] == theirs[0]).mean() > 0.98, name
        assert _error(weight, ours).sum() < 1.01 * _error(weight, theirs).sum(), name


def _matrices() -> list[tuple[str, torch.Tensor]]:
    tensors = load_file(model_of("gemma3") / "model.safetensors")
    return [(name, t.float().reshape(-1, 32)) for name, t in tensors.items() if t.ndim == 2]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 32, 256])
def test_zeros_stay_zeros_among_other_blocks(block, bits):
    x = _weights("normal", 4 * block).reshape(4, block)
    x[1] = 0
    restored = _restored(_ours(x, bits))
    assert (restored[1] == 0).all()
    assert np.corrcoef(restored[0], x[0])[0, 1] > 0.98


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("value", [0.02, -0.02, 3.0, -1e-30, 1e30])
def test_a_constant_block_is_restored(value, bits):
    x = torch.full((3, 32), value)
    np.testing.assert_allclose(_restored(_ours(x, bits)), x, rtol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_block_of_one_sign_is_restored(sign):
    """ONNX Runtime starts from the smallest weight, which no zero point between 0 and 15 can stand for."""
    x = sign * (1 + torch.rand(64, 32, generator=torch.Generator().manual_seed(0)))
    assert np.abs(_restored(_ours(x, 4)) - x.numpy()).max() < 0.15
    assert _error(x, _ours(x, 4)).sum() < 0.05 * _error(x, _theirs(x, 4)).sum()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 32, 256])
@pytest.mark.parametrize(("outlier", "worse"), [(1, 1.01), (100, 1.1)])
def test_one_outlier_is_kept(outlier, worse, block, bits):
    """At 5,000 times the others fp32 sums no longer tell the best of good scales; 50 times is no obstacle."""
    x = _weights("normal", 512 * block).reshape(512, block)
    x[:256, 5], x[256:, 5] = outlier, -outlier
    restored = _restored(_ours(x, bits))
    np.testing.assert_allclose(restored[:, 5], x[:, 5], rtol=1 / 2**bits)
    assert _error(x, _ours(x, bits)).sum() < worse * _error(x, _theirs(x, bits)).sum()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e36])
def test_very_small_and_large_weights_are_rounded_like_others(size, bits):
    x = _weights("normal", 2**14).reshape(-1, 32)
    levels, scales, _ = _ours(x, bits)
    scaled_levels, scaled_scales, _ = _ours((x.double() * size).float(), bits)
    assert (scaled_levels == levels).mean() > 0.99
    np.testing.assert_allclose(np.median(scaled_scales / size / scales), 1, rtol=1e-5)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 64, 256])
def test_no_finite_weights_give_anything_but_numbers(block, bits):
    generator = torch.Generator().manual_seed(1)
    exponents = torch.rand(2048, 1, generator=generator) * 81 - 44
    x = (torch.randn(2048, block, generator=generator).double().clamp(-3, 3) * 10**exponents.double()).float()
    x[::3] *= torch.rand(x[::3].shape, generator=generator) < 0.1
    x[::5] = x[::5].abs() + x[::5].abs().amax(1, keepdim=True)
    x[0], x[1, ::2], x[1, 1::2] = torch.finfo(torch.float32).max, torch.finfo(torch.float32).max, 0
    x[2, ::2], x[2, 1::2] = torch.finfo(torch.float32).max, -torch.finfo(torch.float32).max
    x[3] = 1e-45
    x[4] = 1 + torch.arange(block) * 1.2e-7
    assert x.isfinite().all()
    with np.errstate(invalid="raise", over="raise", divide="raise"):
        levels, scales, zeros = _ours(x, bits)
    assert np.isfinite(scales).all()
    assert (scales >= 0).all()
    assert max(levels.max(), zeros.max()) <= 2**bits - 1


def test_no_blocks_no_result():
    levels, scales, zeros = k_quant(np.empty((0, 32), np.float32), 4)
    assert (levels.shape, scales.shape, zeros.shape) == ((0, 32), (0, 1), (0, 1))


def test_pieces_and_threads_change_nothing():
    x = _weights("normal", 2**20 + 37 * 32).reshape(-1, 32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        together = k_quant(x.numpy(), 4)
        with ThreadPoolExecutor(2) as pool:
            apart = list(pool.map(lambda part: k_quant(part.numpy(), 4), x.split(5000)))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    for whole, parts in zip(together, zip(*apart, strict=True), strict=True):
        assert np.array_equal(whole, np.concatenate(parts))
