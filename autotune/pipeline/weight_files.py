"""Writes a graph's weights into several data files, so that artifacts can share those that they have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx_ir as ir

from autotune.pipeline import graph
from autotune.pipeline.contiguous import contiguous

#: Weights that no adapter changes; what it may change lies in a file for each group of layer matrices.
SHARED_FILE = "model.onnx.data"
CACHES_FILE = "model.rope.data"

#: Where a graph says that a weight lies which is not written with it.
_LEFT_OUT = "left-out"

#: ORT reads the shape of a Reshape and the like from inline tensors only.
_INLINE_BYTES = 1024

#: Offsets of large tensors, so that every system can map them; of small ones.
_PAGE, _SMALL = 64 * 1024, 64


@dataclass(frozen=True)
class Place:
    """Bytes ``offset`` to ``offset + length`` of ``file``."""

    file: str
    offset: int
    length: int


def leave_out(value: Any) -> None:
    """Keep a weight's name, type and shape in the graph, but none of its bytes."""
    tensor = value.const_value
    value.const_value = ir.ExternalTensor(
        _LEFT_OUT, 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape), name=value.name
    )


def group_file(group: str) -> str:
    return f"model.{group}.data"


def save(model: Any, folder: Path, file_of: Callable[[str], str | None]) -> dict[str, Place]:
    """Write the graph and its weights, one at a time; returns where each weight lies that is not inline.

    ``file_of`` names a weight's file; None leaves the choice: inline when it is small, else the
    shared file. A file all of whose weights lie alike in another folder's file of that name becomes
    a hard link of it. ``folder`` must not be where ``model`` was loaded from.
    """
    # ORT wants nodes in the order of their use; the edits insert where it is easiest.
    model.graph.sort()
    graph.remove_unused(model, *list(model.graph.initializers.values()))
    caches = {value.name for value in graph.rope_caches(model)}
    by_file: dict[str, list[Any]] = {}
    for value in model.graph.initializers.values():
        if getattr(value.const_value, "location", None) == _LEFT_OUT:
            continue
        name = file_of(value.name)
        if name is None and value.const_value.nbytes >= _INLINE_BYTES:
            name = CACHES_FILE if value.name in caches else SHARED_FILE
        if name is None:
            value.const_value = ir.Tensor(np.array(value.const_value.numpy()), name=value.name)
        else:
            by_file.setdefault(name, []).append(value)
    places: dict[str, Place] = {}
    for name, values in by_file.items():
        if not _link(values, name, folder, places):
            _write(values, name, folder, places)
    ir.save(model, folder / graph.MODEL_FILE)
    return places


def link(source: Path, target: Path) -> None:
    """``target`` shares the disk of ``source``, or is a copy where the file system cannot link."""
    try:
        os.link(source, target)
    except OSError:
        import shutil

        shutil.copyfile(source, target)


def write_at(file: IO[bytes], offset: int, array: np.ndarray[Any, Any]) -> None:
    """``array``'s bytes at ``offset``; what lies between is zeros."""
    file.seek(offset)
    file.write(contiguous(array).reshape(-1).view(np.uint8).data)


def _link(values: list[Any], name: str, folder: Path, places: dict[str, Place]) -> bool:
    tensors = [value.const_value for value in values]
    if not all(isinstance(t, ir.ExternalTensor) and Path(t.path).name == name for t in tensors):
        return False
    source = Path(tensors[0].path)
    held = sum(t.length for t in tensors)
    if any(Path(t.path) != source for t in tensors) or source.stat().st_size > held + _PAGE * len(tensors):
        return False  # the other folder's file holds weights that this graph no longer has
    link(source, folder / name)
    for value, tensor in zip(values, tensors, strict=True):
        _refer(value, Place(name, int(tensor.offset or 0), int(tensor.length)), folder, places)
    return True


def _write(values: list[Any], name: str, folder: Path, places: dict[str, Place]) -> None:
    offset = 0
    with (folder / name).open("wb") as file:
        for value in values:
            tensor = value.const_value
            step = _PAGE if tensor.nbytes >= _PAGE else _SMALL
            offset = -(-offset // step) * step
            write_at(file, offset, tensor.numpy())
            _refer(value, Place(name, offset, int(tensor.nbytes)), folder, places)
            offset += tensor.nbytes


def _refer(value: Any, place: Place, folder: Path, places: dict[str, Place]) -> None:
    tensor = value.const_value
    value.const_value = ir.ExternalTensor(
        place.file, place.offset, place.length, tensor.dtype, shape=ir.Shape(tensor.shape), name=value.name,
        base_dir=folder,
    )
    places[value.name] = place
