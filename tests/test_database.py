"""The database of a run's studies: names of their own, passwords in no file, and errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotune.errors import ConfigError, StudyError
from autotune.run_folder import RunFolder
from autotune.search.database import Database, answering, database_of, opening
from autotune.search.optuna_study import copy_studies, open_study
from tests import studies

URL = "postgresql+psycopg://autotune:secret@127.0.0.1:9/studies"


def test_a_run_has_its_own_name_in_a_shared_database_and_keeps_it(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a", "sha", {}) as first, RunFolder(tmp_path / "b", "sha", {}) as second:
        one, other = (database_of(folder, URL, "tone") for folder in (first, second))
        assert one.name.startswith("tone-")
        assert one.name != other.name
        assert database_of(first, URL, "tone") == one
        assert "secret" not in (first.root / "database.json").read_text() + repr(one)
        assert database_of(first, None, "tone").name == "tone"


def test_studies_are_copied_whole_into_the_run_folder(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    study = open_study(url, "tone-1", ["maximize"], ["accuracy"])
    study.tell(study.ask(), [0.5])
    for _ in range(2):  # the second takes the place of the first
        copy_studies(url, {"tone-1": "tone"}, tmp_path / "study.db")
    copied = open_study(f"sqlite:///{tmp_path / 'study.db'}", "tone", ["maximize"], ["accuracy"])
    assert [t.values for t in copied.get_trials()] == [[0.5]]
    assert copied.metric_names == ["accuracy"]


@pytest.mark.parametrize(("url", "told"), [
    (URL, "refused"),
    ("postgresql+nonsense://autotune:secret@db/studies", "nonsense"),
    ("grpc://127.0.0.1:9", "timeout"),
])
def test_a_database_that_cannot_be_opened_is_said_without_its_password(
    url: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg" if "psycopg" in url else "grpc" if "grpc" in url else "sqlalchemy")
    monkeypatch.setattr("autotune.search.optuna_study._PROXY_ANSWERS_S", 0.3)
    with pytest.raises(ConfigError) as caught, opening(Database(url, "tone")):
        open_study(url, "tone", ["maximize"], ["accuracy"])
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_one_that_stops_to_answer_ends_the_study_with_a_way_on() -> None:
    from sqlalchemy.exc import OperationalError

    with pytest.raises(StudyError, match=r"does not answer any more: gone \*\*\*; the same command"), \
            answering(Database(URL, "tone")):
        raise OperationalError("SELECT 1", {}, Exception("gone secret"))


def test_a_shared_database_is_part_of_what_a_run_is_and_its_password_is_not(tmp_path: Path) -> None:
    from autotune.config import load_config

    def sha(**changes: str) -> str:
        return load_config(studies.write_study(tmp_path, **changes)).sha256()

    assert sha(storage=URL) == sha(storage=URL.replace("secret", "other")) != sha()
    assert sha(workers="ray", store="memory://x") == sha()
    dumped = load_config(studies.write_study(tmp_path, storage=URL)).file.model_dump(mode="json")
    assert "secret" not in json.dumps(dumped)
