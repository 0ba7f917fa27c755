"""The header of a .gguf file: read in a fraction of a second, and copied without its vocabulary.

Layout (GGUF specification, versions 2 and 3): magic, version u32, tensor count u64, key count u64, the
keys, the tensor table, padding to ``general.alignment``, then the tensors at offsets from there.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from autotune.errors import BaseModelError, Problem

Scalar = int | float | bool | str

_STRING, _ARRAY = 8, 9
#: value type → struct format
_FIXED = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_UINT32 = 4
_BF16, _F32 = 30, 0
_VOCABULARY = ("tokens", "scores", "token_type", "merges")


@dataclass(frozen=True)
class GgufHeader:
    """What stands before the tensors. ``scalars`` holds every key whose value is not an array;
    ``array_lengths`` the number of elements of the others; ``tensor_types`` tensor name → ggml type id.
    """

    path: Path
    scalars: Mapping[str, Scalar]
    array_lengths: Mapping[str, int]
    tensor_types: Mapping[str, int]
    keys: Mapping[str, tuple[int, int]]  # key → first byte, end
    table: tuple[int, int]
    data_start: int

    @property
    def architecture(self) -> str:
        return str(self.scalars.get("general.architecture", ""))

    @property
    def is_bf16(self) -> bool:
        """The matrices are bfloat16 (norms are float32 in every file), so nothing is lost at bfloat16."""
        kinds = set(self.tensor_types.values())
        return _BF16 in kinds and kinds <= {_BF16, _F32}

    def own(self, key: str) -> Scalar | None:
        """The value of ``<architecture>.key``."""
        return self.scalars.get(f"{self.architecture}.{key}")


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size

    def at(self) -> int:
        return self.file.tell()

    def take(self, count: int) -> bytes:
        # A damaged length must end as a message, not as an attempt to read 2**60 bytes.
        if count > self.size - self.at():
            raise ValueError(f"the file ends at byte {self.size}, inside its header")
        return self.file.read(count)

    def number(self, layout: str) -> int:
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return value

    def text(self) -> str:
        return self.take(self.number("<Q")).decode("utf-8", errors="replace")

    def scalar(self, kind: int) -> Scalar:
        return self.text() if kind == _STRING else self.number(_fixed(kind))

    def array(self) -> int:
        """Step over an array; returns its length."""
        kind, length = self.number("<I"), self.number("<Q")
        if kind == _STRING:
            for _ in range(length):
                self.take(self.number("<Q"))
        elif kind == _ARRAY:
            for _ in range(length):
                self.array()
        else:
            self.take(length * struct.calcsize(_fixed(kind)))
        return length


def _fixed(kind: int) -> str:
    if kind not in _FIXED:
        raise ValueError(f"value type {kind} is unknown")
    return _FIXED[kind]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, struct.error, OSError) as error:
        accepted = "a whole GGUF file, version 2 or 3, little-endian"
        raise BaseModelError([Problem(str(path), "", f"cannot be read: {error}", accepted)]) from error


def read_header(path: Path) -> GgufHeader:
    """Read everything before the tensors.

    Raises:
        BaseModelError: the file is missing, cut short, or no GGUF file of version 2 or 3.
    """
    with _readable(path), path.open("rb") as file:
        reader = _Reader(file, path.stat().st_size)
        if reader.take(4) != b"GGUF":
            raise ValueError("it does not begin with the letters GGUF")
        version = reader.number("<I")
        if version not in (2, 3):
            raise ValueError(f"GGUF version {version}")
        tensor_count, key_count = reader.number("<Q"), reader.number("<Q")
        scalars: dict[str, Scalar] = {}
        lengths: dict[str, int] = {}
        keys: dict[str, tuple[int, int]] = {}
        for _ in range(key_count):
            start = reader.at()
            key, kind = reader.text(), reader.number("<I")
            if kind == _ARRAY:
                lengths[key] = reader.array()
            else:
                scalars[key] = reader.scalar(kind)
            keys[key] = (start, reader.at())
        table_start = reader.at()
        types: dict[str, int] = {}
        for _ in range(tensor_count):
            name = reader.text()
            reader.take(8 * reader.number("<I"))
            types[name] = reader.number("<I")
            reader.take(8)
        table = (table_start, reader.at())
        return GgufHeader(path, scalars, lengths, types, keys, table, _aligned(table[1], scalars))


def _aligned(position: int, scalars: Mapping[str, Scalar]) -> int:
    alignment = int(scalars.get("general.alignment", 32))
    return position + -position % alignment


def copy_without_vocabulary(header: GgufHeader, out: Path) -> None:
    """Write the same model to ``out`` with the length of its vocabulary in place of the vocabulary.

    transformers walks through the vocabulary string by string each time it opens a file, about 7 s for
    262,144 tokens, and opens it once for the configuration and once for the weights.
    """
    dropped = {f"tokenizer.ggml.{name}" for name in _VOCABULARY}
    size_key = f"{header.architecture}.vocab_size"
    with header.path.open("rb") as source, out.open("wb") as copy:
        kept = [span for key, span in header.keys.items() if key not in dropped]
        extra = b""
        tokens = header.array_lengths.get("tokenizer.ggml.tokens")
        if tokens is not None and size_key not in header.scalars:
            name = size_key.encode()
            extra = struct.pack("<Q", len(name)) + name + struct.pack("<II", _UINT32, tokens)
        source.seek(4)
        version = source.read(4)
        counts = struct.pack("<QQ", len(header.tensor_types), len(kept) + bool(extra))
        copy.write(b"GGUF" + version + counts + extra)
        for start, end in [*kept, header.table]:
            source.seek(start)
            copy.write(source.read(end - start))
        copy.write(b"\0" * (_aligned(copy.tell(), header.scalars) - copy.tell()))
        source.seek(header.data_start)
        shutil.copyfileobj(source, copy, 16 << 20)
