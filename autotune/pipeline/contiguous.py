"""Transposed matrices copied by tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

#: A tile's rows and columns: with 64 KB in fp32 both what is read and what is written stays in a core's cache.
_ROWS, _COLUMNS = 64, 256


def contiguous(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``array`` with its rows one after the other in memory; itself where they are.

    A transposed matrix is what ``numpy.ascontiguousarray`` copies two to four times as slowly: it goes along
    whole columns, so that each number costs a line of the cache.
    """
    if array.ndim != 2 or array.flags.c_contiguous or array.strides[0] >= array.strides[1]:
        return np.ascontiguousarray(array)
    copy = np.empty(array.shape, array.dtype)
    for column in range(0, array.shape[1], _COLUMNS):
        for row in range(0, array.shape[0], _ROWS):
            tile = slice(row, row + _ROWS), slice(column, column + _COLUMNS)
            copy[tile] = array[tile]
    return copy
