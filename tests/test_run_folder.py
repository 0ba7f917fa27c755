"""To which study a run folder belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.config import resolve_config
from autotune.errors import ConfigError
from autotune.run_folder import RunFolder
from autotune.study_file import MAY_CHANGE
from tests import studies

NOW = {"seed": 1, "repeats": {"seeds": 2}, "budget": {"adapters": 9}, "certificate": {"finalists": 1}}


def opened(folder: Path, **changes: Any) -> None:
    path = studies.write_study(folder, **changes)
    config = resolve_config(yaml.safe_load(path.read_text(encoding="utf-8")), "study.yaml", folder)
    resolved = config.file.model_dump(mode="json", by_alias=True, exclude_none=True)
    with RunFolder(folder / "run", config.sha256(), resolved):
        pass


def test_what_may_change_does_not_make_it_another_study(tmp_path: Path) -> None:
    opened(tmp_path)
    opened(tmp_path, **{key: value for key, value in NOW.items() if key in MAY_CHANGE})


def test_of_another_study_only_what_may_not_change_is_named(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path, **NOW)
    (problem,) = caught.value.problems
    assert problem.where == "seed"
    assert all(key in problem.accepted for key in MAY_CHANGE)
