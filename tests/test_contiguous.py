"""A matrix copied by tiles is the same matrix."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from autotune.pipeline.contiguous import contiguous


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8, np.bool_, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (700, 3), (64, 256), (300, 517), (0, 5)])
def test_transposed_matrices_and_their_slices_keep_every_number(shape, dtype):
    source = (np.arange(shape[0] * shape[1]) % 2039).reshape(shape).astype(dtype)
    for view in (source, source.T, source.T[1:], source.T[:, ::2], source[::2].T, source.T[::-1]):
        copy = contiguous(view)
        assert copy.flags.c_contiguous
        np.testing.assert_array_equal(copy, view)


def test_what_lies_in_order_is_not_copied():
    source = np.zeros((4, 5), np.float32)
    assert contiguous(source) is source


def test_other_than_matrices_are_copied_as_numpy_does():
    source = np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)
    np.testing.assert_array_equal(contiguous(source), source)
    assert contiguous(source).flags.c_contiguous
