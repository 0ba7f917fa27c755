"""The base model's licence, as far as what lies here tells; nothing is asked over the network."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.errors import InputError
from autotune.pipeline.base_model import ModelSource, resolve

_CLASSIFIER = "License :: "
#: Characters; what is longer is the licence's text and not its name.
_LONGEST = 200


@dataclass(frozen=True)
class Licence:
    """``name`` as it was found, None where nothing tells; ``source`` says where it stands, or that it does not."""

    name: str | None
    source: str


def licence_of(spec: str, study_dir: Path | None, fingerprint: Mapping[str, str]) -> Licence:
    """The licence of the study's ``model``. ``study_dir`` is what a path is relative to."""
    try:
        source = resolve(spec, study_dir or Path())
    except InputError:
        return Licence(None, "the base model is not here any more")
    found = {"package": _of_package, "hub": _of_hub, "folder": _of_folder, "gguf": _of_gguf}[source.kind](
        source, fingerprint)
    return Licence(_one_line(found.name), found.source) if found.name else found


def _of_package(source: ModelSource, _: Mapping[str, str]) -> Licence:
    for name in importlib.metadata.packages_distributions().get(source.name, []):
        about = importlib.metadata.metadata(name).json
        classified = [c.rpartition(" :: ")[2] for c in about.get("classifier", ()) if c.startswith(_CLASSIFIER)]
        for licence in (about.get("license_expression"), about.get("license"), *classified):
            if isinstance(licence, str) and licence.strip() and len(licence) < _LONGEST:
                return Licence(licence, f"the metadata of the Python package {name}")
    return Licence(None, f"the Python package {source.name} names none in its metadata")


def _of_hub(source: ModelSource, fingerprint: Mapping[str, str]) -> Licence:
    from huggingface_hub import try_to_load_from_cache

    card = try_to_load_from_cache(source.name, "README.md", revision=fingerprint.get("revision"))
    if not isinstance(card, str):
        return Licence(None, f"see https://huggingface.co/{source.name}; its model card was not downloaded")
    return Licence(_on_card(Path(card)), f"the model card of {source.name}")


def _of_folder(source: ModelSource, _: Mapping[str, str]) -> Licence:
    named = _on_card(source.path / "README.md")
    if named:
        return Licence(named, "the README.md in the base model's folder")
    config = _json(source.path / "config.json").get("license")
    if isinstance(config, str) and config:
        return Licence(config, "the config.json in the base model's folder")
    return Licence(None, "neither README.md nor config.json in the base model's folder names one")


def _of_gguf(source: ModelSource, _: Mapping[str, str]) -> Licence:
    from autotune.pipeline.gguf_file import read_header

    try:
        found = read_header(source.path).scalars.get("general.license")
    except InputError:
        found = None
    return Licence(str(found) if found else None,
                   "the metadata of the .gguf file" if found else "the .gguf file names none in its metadata")


def _on_card(path: Path) -> str | None:
    """A model card's ``license``, or its ``license_name`` where that is ``other``."""
    from huggingface_hub import ModelCard

    try:
        data = ModelCard.load(path).data.to_dict() if path.is_file() else {}
    except (OSError, ValueError):
        return None
    found = data.get("license_name") if data.get("license") == "other" else data.get("license")
    return str(found) if found else None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _one_line(text: str) -> str:
    return " ".join(text.split())
