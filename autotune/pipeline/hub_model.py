"""Hub models: which commit a revision stands for, and a download of exactly the files needed."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path
from typing import Any

from autotune.errors import BaseModelError
from autotune.pipeline.base_model import CONFIG_FILES, TOKENIZER_FILES, problem, require_no_code
from autotune.pipeline.progress import Report

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SMALL = (*CONFIG_FILES, "tokenizer*", *TOKENIZER_FILES)
_WEIGHTS = "model*.safetensors"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def resolve_commit(name: str, revision: str | None) -> str:
    """The commit that ``revision`` stands for now; without a connection, what it stood for when last seen.

    Raises:
        BaseModelError: no such model or revision, or no connection and nothing downloaded.
    """
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    try:
        return str(_info(name, revision).sha)
    except BaseModelError:
        cached = _cached_config(name, revision)
        if cached is None:
            raise
        return cached.parent.name


def download(name: str, revision: str | None, report: Report) -> Path:
    """Fetch config, tokenizer and safetensors of one commit into huggingface_hub's cache; returns the folder.

    The configuration comes first, so that a model that cannot be used is refused before its weights travel.

    Raises:
        BaseModelError: the model cannot be used, or the hub does not give it.
    """
    import huggingface_hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from autotune.pipeline.architectures import require_supported

    disable_progress_bars()
    report(0.0, 1.0, f"asking the hub for {name}")
    commit = resolve_commit(name, revision)
    try:
        files = [str(entry.rfilename) for entry in _info(name, commit).siblings or []]
    except BaseModelError:
        # No connection, but this commit was fetched before. snapshot_download would call that incomplete, as
        # it misses the files that were not asked for.
        config_file = _cached_config(name, commit)
        if config_file is None or not _has_all_weights(config_file.parent):
            raise
        return config_file.parent
    chosen = choose_files(name, files)
    try:
        # Asked for by branch, so that the cache remembers which commit it stands for when there is no connection.
        huggingface_hub.hf_hub_download(name, "config.json", revision=revision)
        config = huggingface_hub.hf_hub_download(name, "config.json", revision=commit)
        require_no_code(Path(config).parent)
        require_supported(Path(config).parent)
        report(0.05, 1.0, f"downloading {name}")
        folder = huggingface_hub.snapshot_download(name, revision=commit, allow_patterns=chosen)
    except BaseModelError:
        raise
    except Exception as error:  # the hub's client raises its HTTP library's own classes too
        raise _unreachable(name, error) from error
    report(1.0, 1.0, f"downloaded {name}")
    return Path(folder)


def choose_files(name: str, files: list[str]) -> list[str]:
    """Of a repository's files those of one safetensors checkpoint at its root.

    Raises:
        BaseModelError: there is no such checkpoint; the message says what is there instead.
    """
    accepted = "a repository with config.json and model*.safetensors"
    if "config.json" not in files:
        gguf = [file for file in files if file.endswith(".gguf")]
        found = f"only GGUF files ({gguf[0]}, …)" if gguf else "no config.json"
        hint = "; or download one .gguf file and name its path" if gguf else ""
        raise problem(f"hub model {name}", "", found, accepted + hint)
    weights = fnmatch.filter([file for file in files if "/" not in file], _WEIGHTS)
    if not weights:
        pickled = [file for file in files if file.endswith(_PICKLED)]
        found = f"weights only as pickle ({', '.join(pickled[:3])})" if pickled else "no model*.safetensors"
        raise problem(f"hub model {name}", "", found, f"{accepted}; pickle can run code")
    small = [f for f in files if "/" not in f and any(fnmatch.fnmatch(f, pattern) for pattern in _SMALL)]
    return sorted({*small, *weights})


def _has_all_weights(folder: Path) -> bool:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return all((folder / name).is_file() for name in names)


def _cached_config(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found) if isinstance(found, str) else None


def _info(name: str, revision: str | None) -> Any:
    import huggingface_hub

    try:
        return huggingface_hub.HfApi().model_info(name, revision=revision)
    except Exception as error:  # as above
        raise _unreachable(name, error) from error


def _unreachable(name: str, error: Exception) -> BaseModelError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, GatedRepoError):
        found, accepted = "the model's terms were not accepted", "an accepted licence and `hf auth login`"
    elif isinstance(error, RevisionNotFoundError):
        found, accepted = "no such revision", "a branch, tag or commit of the repository"
    elif isinstance(error, RepositoryNotFoundError):
        found, accepted = "no such model, or a private one", "org/name as on the hub"
    else:
        found, accepted = f"the hub cannot be reached ({first_line})", "a connection, or a local folder"
    return problem(f"hub model {name}", "", found, accepted)
