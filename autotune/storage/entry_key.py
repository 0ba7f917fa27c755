"""The name of one entry of the store: a hash of all that makes its contents what they are."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from objectives.board import BUILDS


@dataclass(frozen=True)
class Key:
    """Names one entry: ``{stage}/{digest}``. ``content`` is what was hashed; a key to look up may lack it."""

    stage: str
    digest: str
    content: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False, repr=False)

    def __str__(self) -> str:
        return f"{self.stage}/{self.digest}"


def make_key(stage: str, version: int, inputs: Mapping[str, Any], libraries: tuple[str, ...] = ()) -> Key:
    """The key of a stage's output. ``inputs`` are JSON values: parameters and digests of contents."""
    content = {
        "stage": stage, "version": version, "inputs": inputs,
        "libraries": {name: library_version(name) for name in sorted(libraries)},
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return Key(stage, hashlib.sha256(text.encode()).hexdigest()[:32], json.loads(text))


def library_version(name: str) -> str:
    """Of an installed distribution, and of each other build of it, which is then named: of several one shadows the
    rest, and which one only loading it would tell. ``none`` where there is neither."""
    found = []
    for build in BUILDS.get(name, (name,)):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(metadata.version(build) if build == name else f"{metadata.version(build)} ({build})")
    return ", ".join(found) or "none"
