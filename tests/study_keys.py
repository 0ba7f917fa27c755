"""Every key of a study file, for tests that hold others to be complete."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from autotune.config_errors import _sections


def keys_of(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Names with dots between the depths; a section counts where it can also be a plain value."""
    for name, field in model.model_fields.items():
        key = f"{path}{field.alias or name}"
        inner = list(_sections(field.annotation))
        if not inner or key in ("objectives", "workers"):
            yield key
        for section in inner:
            yield from keys_of(section, f"{key}.")
