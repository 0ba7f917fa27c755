"""What ``autotune run`` is told beside the study itself, checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune.config import StudyConfig
from autotune.errors import ConfigError, Problem
from autotune.preparation import store_root
from autotune.storage.mirror import Mirror
from autotune.storage.store import Store
from autotune.storage.urls import HIDDEN, is_url
from autotune.study_file import DURATIONS, parse_duration


@dataclass(frozen=True)
class Options:
    """``trials`` and ``time_s`` win over the study's budget. ``quiet`` leaves stdout alone, ``silent`` stderr too.

    ``mirror`` is the URL of the store beneath the local one. ``warm_start`` is an earlier run's folder.
    """

    out: Path
    store: Path
    trials: int | None = None
    time_s: float | None = None
    quiet: bool = False
    silent: bool = False
    warm_start: Path | None = None
    mirror: str | None = field(default=None, repr=False)


def open_store(options: Options, say: Callable[[str], None]) -> Store:
    """The run's store. Raises ConfigError where the one beneath it cannot be reached."""
    return Store(options.store, say, Mirror(options.mirror, say) if options.mirror else None)


def store_of_run(study: Mapping[str, Any], asked: Path | None, say: Callable[[str], None]) -> Store:
    """The store of a finished run by its study.yaml: ``asked`` for, else the study's own where the copy tells it whole.

    Raises ConfigError where the one beneath it cannot be reached.
    """
    own = str(study.get("store") or "")
    root = store_root(asked, dict(os.environ), own if Path(own).is_absolute() else None)
    return Store(root, say, Mirror(own, say) if is_url(own) and HIDDEN not in own else None)


def resolve_options(
    config: StudyConfig, out: Path | None, store: Path | None, trials: int | None, timeout: str | None, *,
    quiet: bool = False, silent: bool = False, warm_start: Path | None = None,
) -> Options:
    """Defaults put in and the store's folder made.

    Raises:
        ConfigError: with everything that is wrong.
    """
    problems, time_s = [], None
    if trials is not None and trials < 1:
        problems.append(Problem("--trials", "", str(trials), "1 or more"))
    try:
        time_s = parse_duration(timeout) if timeout is not None else None
    except ValueError as error:
        problems.append(Problem("--timeout", "", str(error), DURATIONS))
    own = config.file.store
    folder = str(config.base_dir / Path(own).expanduser()) if own and not is_url(own) else None
    root = store_root(store, dict(os.environ), folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problems.append(Problem("--store", str(root), error.strerror or str(error), "a folder that can be written"))
    if warm_start is not None and not (warm_start / "study.db").is_file():
        problems.append(Problem("--warm-start", str(warm_start), "no study.db in it", "the folder of an earlier run"))
    if problems:
        raise ConfigError(problems)
    return Options(out or Path("runs") / config.file.name, root, trials, time_s, quiet, silent,
                   warm_start, own if own and is_url(own) else None)
