"""Everything a study needs before its first trial: base model, token ids, deploy points that can run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.config import StudyConfig
from autotune.errors import ConfigError, Problem
from autotune.estimate import artifact_bytes
from autotune.pipeline import architectures, base_model, stages
from autotune.pipeline.tokens import TokenizedData
from autotune.questions import Target, Workload
from autotune.report.terminal import Terminal
from autotune.storage.stage_runner import StageRunner
from autotune.storage.store import Entry, file_sha256
from autotune.storage.urls import is_url
from autotune.study_file import DeviceSection
from autotune.targets.address import LOCAL
from search_spaces.deploy import DeployParams, highest_precision, unsupported

_MIN_CONTEXT = 512


@dataclass(frozen=True)
class Prepared:
    """Ready to search. ``dropped`` are deploy points with the sentence why the target cannot run them.

    ``reference`` is the highest precision, which the export is checked at and relative limits rest on. ``pace`` is
    what other points are timed by turns with: the smallest. Where the machine's memory slows down, artifacts that are
    alike slow down alike, and one of fp32 by more than a quantized one (`benchmarks/repeatability.py`).
    ``fingerprint`` is the base model's (`base_model.fingerprint`).
    """

    base: Entry
    data_entry: Entry
    data: TokenizedData
    facts: architectures.ModelFacts
    points: tuple[DeployParams, ...]
    dropped: tuple[tuple[DeployParams, str], ...]
    reference: DeployParams
    pace: DeployParams
    context_length: int
    target: Target
    workload: Workload
    fingerprint: Mapping[str, str]


_Parted = tuple[tuple[DeployParams, ...], tuple[tuple[DeployParams, str], ...]]


def deploy_points(points: tuple[DeployParams, ...], provider: str) -> _Parted:
    """The points that the provider can run, and the others with the reason."""
    return _parted({point: unsupported(point, provider) for point in points})


def _for_all(points: tuple[DeployParams, ...], devices: Mapping[str, DeviceSection]) -> _Parted:
    """The points that every further device can run, and the others with the reason: one artifact is for all."""
    return _parted({point: next((f"on {name}: {reason}" for name, device in devices.items()
                                 if (reason := unsupported(point, device.provider))), None) for point in points})


def _parted(reasons: Mapping[DeployParams, str | None]) -> _Parted:
    return (tuple(p for p, reason in reasons.items() if reason is None),
            tuple((p, reason) for p, reason in reasons.items() if reason is not None))


def prepare(config: StudyConfig, source: base_model.ModelSource, run: StageRunner, terminal: Terminal) -> Prepared:
    """Run the stages that come before any trial.

    Raises:
        InputError: the base model, the rows, or the context that they need cannot be had.
    """
    file = config.file
    points, dropped = deploy_points(config.space.deploy, file.target.provider)
    points, elsewhere = _for_all(points, file.devices or {})
    dropped += elsewhere
    for point, reason in dropped:
        terminal.warn(f"{point.label} is left out: {reason}")
    if not points:
        asked = ", ".join(dict.fromkeys([file.target.provider, *(d.provider for d in (file.devices or {}).values())]))
        raise ConfigError([Problem("study.yaml", "space.deploy", f"nothing that provider {asked} runs",
                                   "at least one deploy point of this provider")])
    here = [file.target.provider, *(d.provider for d in (file.devices or {}).values() if d.host == LOCAL)]
    for provider in dict.fromkeys(here):
        run.call("looking for the execution provider", stages.require_provider, provider, kind="answers")
    own = [key for key in config.measured() if ":" in key]
    if own:
        run.call("loading the study's metrics", stages.require_metrics, own, config.base_dir)
    fingerprint = run.call("reading the base model's contents", base_model.fingerprint, source)
    base = run.base(source, fingerprint)
    data_entry = run.data(base, _data_spec(config), _contents(config))
    for warning in json.loads((data_entry.path / stages.WARNINGS_FILE).read_text(encoding="utf-8")):
        terminal.warn(warning)
    data = TokenizedData.load(data_entry.path / stages.DATA_FILE)
    facts = architectures.read_facts(base.path)
    work = file.target.workload
    workload = Workload(work.prompt_tokens, work.new_tokens, work.from_ is not None, work.samples)
    needed = workload.tokens_needed(data, file.data.max_new_tokens)
    context = _context_length(file.target.context_length, needed, facts.context_length)
    target = Target(file.target.provider, file.target.provider_options, file.target.threads)
    pace = min(points, key=lambda point: artifact_bytes(facts, point))
    return Prepared(base, data_entry, data, facts, points, dropped, _reference(file.target.provider), pace, context,
                    target, workload, fingerprint)


def _data_spec(config: StudyConfig) -> dict[str, Any]:
    data = config.file.data
    return {
        "base_dir": config.base_dir, "train": data.train, "valid": data.valid, "test": data.test,
        "prompt": data.prompt, "answer": data.answer, "chat": data.chat, "task": data.task,
        "labels": data.labels, "max_tokens": data.max_tokens,
    }


def _contents(config: StudyConfig) -> dict[str, str]:
    """Digest of every data file; a hub data set is known by its name and revision."""
    found = {}
    for split in ("train", "valid", "test"):
        source = getattr(config.file.data, split)
        path = config.base_dir / source if source else None
        if path and path.is_file():
            found[split] = file_sha256(path)
        elif source:
            found[split] = source
    return found


def _context_length(asked: int | None, needed: int, longest: int) -> int:
    if asked is None:
        asked = max(_MIN_CONTEXT, 1 << (needed - 1).bit_length())
    if needed > longest:
        raise ConfigError([Problem("study.yaml", "target.workload", f"{needed} tokens of prompt and answer",
                                   f"at most the {longest} that the base model was made for")])
    if needed > asked:
        raise ConfigError([Problem("study.yaml", "target.context_length", str(asked),
                                   f"at least {needed}, which the rows and the workload need")])
    return min(asked, longest)


def _reference(provider: str) -> DeployParams:
    if (point := highest_precision(provider)) is None:
        raise ConfigError([Problem("study.yaml", "target.provider", provider, "a provider with fp32 or fp16")])
    return point


def store_root(asked: Path | None, environment: dict[str, str], own: str | None = None) -> Path:
    """``--store``, else the study's ``own`` folder, else ``$AUTOTUNE_STORE``, else a folder of the user's cache."""
    if asked:
        return asked.expanduser().resolve()
    if own and not is_url(own):
        return Path(own).expanduser().resolve()
    if environment.get("AUTOTUNE_STORE"):
        return Path(environment["AUTOTUNE_STORE"]).expanduser().resolve()
    cache = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "autotune"
