"""The base model, wherever it comes from, as one local Hugging Face folder.

``resolve`` reads the study's ``model`` field, ``fingerprint`` names the contents for cache keys, and
``materialize`` makes the folder: config.json, model*.safetensors, tokenizer files, generation_config.json.
Weights come from safetensors or GGUF alone; pickle and code from model repositories are never opened.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from autotune.errors import BaseModelError, Problem
from autotune.pipeline.progress import Report, silent

Kind = Literal["hub", "folder", "gguf", "package"]

ACCEPTED = (
    "a hub model org/name or org/name@revision, a Hugging Face folder, a .gguf file, "
    "or package:NAME of an installed Python package that ships weights"
)
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_REVISION = re.compile(r"[\w][\w./-]*")
#: the tokenizer files of a Hugging Face folder, beside ``tokenizer*``
TOKENIZER_FILES = (
    "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "chat_template.jinja",
)  # fmt: skip
#: classes that transformers has for every architecture it knows
_OWN_CLASSES = ("Config", "Model", "ForCausalLM", "ForSequenceClassification", "ForTokenClassification")
CONFIG_FILES = ("config.json", "generation_config.json", "model.safetensors.index.json")


@dataclass(frozen=True)
class ModelSource:
    """Where the base model is. ``name`` is the hub id, the package's import name, or an absolute path;
    ``revision`` is for hub models alone, None for the default branch.
    """

    kind: Kind
    name: str
    revision: str | None = None

    @property
    def path(self) -> Path:
        """The folder or file, for the kinds that have one."""
        return Path(self.name)


def resolve(spec: str, base_dir: Path) -> ModelSource:
    """Read the study's ``model`` field; relative paths start at ``base_dir``.

    Imports nothing heavy and opens no connection, so that a typo costs no time.

    Raises:
        BaseModelError: the text is none of ``ACCEPTED``, or what it names does not exist here.
    """
    if spec.startswith("package:"):
        return _resolve_package(spec.removeprefix("package:"))
    path = base_dir / Path(spec).expanduser()
    if spec.lower().endswith(".gguf"):
        if not path.is_file():
            raise problem("model", "", f"no file {path}", ACCEPTED)
        return ModelSource("gguf", str(path.resolve()))
    if spec and path.is_dir():
        if not (path / "config.json").is_file():
            raise problem("model", "", f"folder {path} has no config.json", "a Hugging Face model folder")
        return ModelSource("folder", str(path.resolve()))
    name, at, revision = spec.partition("@")
    if _HUB_NAME.fullmatch(name) and ".." not in name and (not at or _REVISION.fullmatch(revision)):
        return ModelSource("hub", name, revision or None)
    raise problem("model", "", f"{spec!r} names no folder or file here and is no hub name", ACCEPTED)


def _resolve_package(name: str) -> ModelSource:
    if not name.isidentifier():
        raise problem("model", "", f"'package:{name}'", "package: and the import name of a Python package")
    if importlib.util.find_spec(name) is None:
        accepted = f"an installed package; try: pip install {name.replace('_', '-')}"
        raise problem("model", "", f"Python package {name!r} is not installed", accepted)
    return ModelSource("package", name)


def problem(file: str | Path, where: str, found: str, accepted: str) -> BaseModelError:
    return BaseModelError([Problem(str(file), where, found, accepted)])


def fingerprint(source: ModelSource) -> dict[str, str]:
    """What identifies the contents: two sources with equal fingerprints give the same folder.

    A hub model is asked for the commit that its revision stands for, unless the revision is one.

    Raises:
        BaseModelError: the source cannot be read or the hub cannot be reached.
    """
    if source.kind == "hub":
        from autotune.pipeline.hub_model import resolve_commit

        return {"kind": "hub", "name": source.name, "revision": resolve_commit(source.name, source.revision)}
    if source.kind == "gguf":
        return {"kind": "gguf", "sha256": _sha256([source.path])}
    if source.kind == "folder":
        return {"kind": "folder", "sha256": _sha256(model_files(source.path))}
    return {"kind": "package", "name": source.name, **_package_contents(source.name)}


def model_files(folder: Path) -> list[Path]:
    """The files of a Hugging Face folder that decide what the model says, sorted by name."""
    wanted = {*CONFIG_FILES, *TOKENIZER_FILES}
    return sorted(
        path
        for path in folder.iterdir()
        if path.name in wanted or path.name.startswith("tokenizer") or path.match("model*.safetensors")
    )


def _sha256(files: Iterable[Path], root: Path | None = None) -> str:
    """Of one file its plain sha256; of several, one over their names (from ``root``) and contents."""
    files = list(files)
    digests: list[tuple[str, str]] = []
    for file in files:
        try:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise problem(file, "", f"cannot be read: {error.strerror}", "a readable file") from None
        digests.append((str(file.relative_to(root)) if root else file.name, digest))
    if len(digests) == 1:
        return digests[0][1]
    return hashlib.sha256(repr(digests).encode()).hexdigest()


def _package_contents(name: str) -> dict[str, str]:
    """The distribution's version, or a hash of the files of a package that was never installed as one."""
    found = {}
    distributions = importlib.metadata.packages_distributions().get(name, [])
    if distributions:
        found["version"] = importlib.metadata.version(distributions[0])
    else:
        origin = getattr(importlib.util.find_spec(name), "origin", None)
        if origin is None:
            raise problem("model", "", f"Python package {name!r} has no files", "an installed package")
        root = Path(origin).parent
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".pyc"]
        found["sha256"] = _sha256(files, root) if Path(origin).stem == "__init__" else _sha256([Path(origin)])
    return found


def materialize(source: ModelSource, out: Path, report: Report = silent) -> Path:
    """Make, or find, the Hugging Face folder of a model; returns it.

    A folder and a hub snapshot are used where they lie; GGUF weights are converted into ``out``, which
    appears whole or not at all.

    Raises:
        BaseModelError: the model cannot be used (its architecture, pickled weights, code of its own, a
            damaged file), said before its weights are read or downloaded where that can be known.
    """
    if source.kind == "folder":
        require_usable(source.path)
        return source.path
    if source.kind == "hub":
        from autotune.pipeline.hub_model import download

        folder = download(source.name, source.revision, report)
        require_usable(folder)
        return folder
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        file = source.path if source.kind == "gguf" else _unpack(source.name, work / "weights.gguf", report)
        from autotune.pipeline.gguf_convert import convert

        convert(file, work / "folder", report)
        require_usable(work / "folder")
        if out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        (work / "folder").rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out


def _unpack(name: str, target: Path, report: Report) -> Path:
    """Have the package write its .gguf to ``target``."""
    report(0.0, 1.0, f"unpacking {name}")
    module = _import(name)
    assemble = getattr(module, "assemble", None)
    if not callable(assemble):
        found = f"Python package {name!r} has no function assemble(path)"
        raise problem("model", "", found, "a package that ships weights")
    try:
        written = assemble(target)
    except Exception as error:  # the package is somebody else's: whatever it raises is its answer
        found = f"{name}.assemble failed: {error}"
        raise problem("model", "", found, "a complete installation of it") from error
    file = Path(written) if written is not None else target
    if not file.is_file():
        raise problem("model", "", f"{name}.assemble wrote no file", "a package that ships a .gguf file")
    return file


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise problem("model", "", f"import {name} failed: {error}", "an installed Python package") from error


def require_usable(folder: Path) -> None:
    """Refuse a Hugging Face folder that autotune cannot or must not load, from its small files alone.

    Raises:
        BaseModelError: with every reason at once where they do not hide one another.
    """
    from autotune.pipeline.architectures import require_supported

    require_no_code(folder)
    require_supported(folder)
    problems = []
    if not any(folder.glob("model*.safetensors")):
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        found = f"weights only as pickle ({', '.join(pickled)})" if pickled else "no model*.safetensors"
        problems.append(Problem(str(folder), "", found, "weights as safetensors; pickle can run code"))
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        accepted = "tokenizer.json, tokenizer.model, or vocab.json with merges.txt"
        problems.append(Problem(str(folder), "", "no tokenizer files", accepted))
    if problems:
        raise BaseModelError(problems)


def require_no_code(folder: Path) -> None:
    """Refuse a model that needs Python code of its own repository (``auto_map``).

    A configuration that merely still names files for classes that transformers has long had (as Phi-3's
    does) passes: those files are not fetched and not run.
    """
    from autotune.pipeline.architectures import ARCHITECTURES, read_config

    accepted = "a model that transformers knows by itself; code from model repositories is never run"
    config = read_config(folder)
    name = str((config.get("architectures") or [""])[0])
    stem = name.removesuffix("ForCausalLM")
    known = {stem + ending for ending in _OWN_CLASSES} if name in ARCHITECTURES else set()
    foreign = _named_classes(config.get("auto_map")) - known
    if foreign:
        found = f"the model brings its own code ({', '.join(sorted(foreign))})"
        raise problem(folder / "config.json", "auto_map", found, accepted)
    tokenizer = folder / "tokenizer_config.json"
    try:
        declared = json.loads(tokenizer.read_text(encoding="utf-8")) if tokenizer.is_file() else {}
    except ValueError as error:
        raise problem(tokenizer, "", f"not JSON ({error})", "a JSON object") from None
    if isinstance(declared, dict) and declared.get("auto_map"):
        raise problem(tokenizer, "auto_map", "the tokenizer brings its own code", accepted)


def _named_classes(auto_map: object) -> set[str]:
    """Class names of ``auto_map``: ``{"AutoConfig": "file.Class"}``, each optionally a list."""
    if not auto_map:
        return set()
    values = auto_map.values() if isinstance(auto_map, dict) else [auto_map]
    listed = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return {str(item).rsplit(".", 1)[-1] for item in listed if item}
