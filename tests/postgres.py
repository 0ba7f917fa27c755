"""A PostgreSQL server of the tests' own: made, started and stopped by them, with a password."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "s3cret:of/the@tests"
_QUOTED = "s3cret%3Aof%2Fthe%40tests"


@contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database. Skips the test where PostgreSQL is not installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'autotune-edge[ray]'")
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="postgres-", dir="/tmp") as made:
        folder, port = Path(made), _free_port()
        (folder / "password").write_text(PASSWORD, encoding="utf-8")
        as_whom = _unprivileged(folder)
        _run([programs / "initdb", "-D", folder / "data", "-U", "autotune", "--auth=scram-sha-256", "--no-sync",
              f"--pwfile={folder / 'password'}"], as_whom)
        control = [programs / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log"]
        _run([*control, "-o", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off", "start"], as_whom)
        try:
            yield f"postgresql+psycopg://autotune:{_QUOTED}@127.0.0.1:{port}/postgres"
        finally:
            _run([*control, "-m", "immediate", "stop"], as_whom)


def _programs() -> Path:
    found = [Path(p).parent for p in [shutil.which("initdb")] if p]
    found += sorted(p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL's initdb is not here: apt-get install postgresql")
    return found[-1]


def _unprivileged(folder: Path) -> dict[str, Any]:
    """PostgreSQL does not run as root: then as another user, who owns the folder."""
    if os.getuid():
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in names else "nobody"
    for path in (folder, folder / "password"):
        shutil.chown(path, user)
    return {"user": user, "extra_groups": [], "cwd": folder}


def _run(command: list[Any], as_whom: dict[str, Any]) -> None:
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60, check=False, stdin=subprocess.DEVNULL, **as_whom)
    assert done.returncode == 0, done.stdout


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
