"""Where a run keeps its Optuna studies: study.db in its folder, or a database that several machines share."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from autotune.errors import ConfigError, Problem, StudyError
from autotune.run_folder import RunFolder
from autotune.storage.store import write_atomically
from autotune.storage.urls import HIDDEN, masked, without_secrets

_HINT = "a database that answers; PGPASSWORD, ~/.pgpass or the URL itself may give PostgreSQL's password"


@dataclass(frozen=True)
class Database:
    """``url`` is Optuna's, with the password if it has one; ``name`` the visible study's there. ``copy``: the study.db
    that reports and people open, where the studies are elsewhere; else None."""

    url: str = field(repr=False)
    name: str
    copy: Path | None = None


def database_of(folder: RunFolder, storage: str | None, name: str) -> Database:
    """The database of a run whose study is called ``name``.

    In a shared one two run folders of the same study must not meet: each takes a name of its own, once and for all.
    """
    if storage is None:
        return Database(f"sqlite:///{folder.database}", name)
    file = folder.root / "database.json"
    if not file.exists():
        found = {"storage": masked(storage), "study": f"{name}-{uuid.uuid4().hex[:8]}"}
        write_atomically(file, json.dumps(found, indent=1))
    return Database(storage, json.loads(file.read_text(encoding="utf-8"))["study"], folder.database)


@contextmanager
def opening(database: Database) -> Iterator[None]:
    """Raises ConfigError where the database cannot be opened."""
    try:
        yield
    except ImportError as error:
        raise _cannot(database, f"its driver is not installed ({_told(database, error.__cause__ or error)})",
                      "pip install 'autotune-edge[ray]' for PostgreSQL and grpc, or the driver that the URL names"
                      ) from None
    except _failures() as error:
        hidden = f"; its password is {HIDDEN}, as copies have it" if f":{HIDDEN}@" in database.url else ""
        raise _cannot(database, _told(database, error) + hidden, _HINT) from None


@contextmanager
def answering(database: Database) -> Iterator[None]:
    """Raises StudyError where the database stops to answer meanwhile; what was stored until then stays."""
    try:
        yield
    except _failures() as error:
        raise StudyError(f"the database {masked(database.url)} does not answer any more: {_told(database, error)}; the "
                         "same command goes on from here") from None


def _failures() -> tuple[type[Exception], ...]:
    """What SQLAlchemy raises of a database, and grpc of Optuna's proxy where that is in use."""
    from sqlalchemy.exc import SQLAlchemyError

    grpc = sys.modules.get("grpc")
    return (SQLAlchemyError, ConnectionError, *((grpc.RpcError,) if grpc else ()))


def _told(database: Database, error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return without_secrets(" ".join(str(cause).split())[:300], database.url)


def _cannot(database: Database, found: str, accepted: str) -> ConfigError:
    return ConfigError([Problem("study.yaml", "storage", f"{masked(database.url)}: {found}", accepted)])
