"""URLs of databases and stores: shown without passwords."""

from __future__ import annotations

import pytest

from autotune.storage.urls import is_database, is_url, masked, without_secrets


@pytest.mark.parametrize(("url", "shown"), [
    ("postgresql://me:secret@db:5432/studies", "postgresql://me:***@db:5432/studies"),
    ("postgresql://me:se/cr@et@db/studies", "postgresql://me:***@db/studies"),
    ("postgresql://me@db:5432/studies", "postgresql://me@db:5432/studies"),
    ("mysql+pymysql://db/studies?user=me&password=secret&ssl=1", "mysql+pymysql://db/studies?user=me&password=***&ssl=1"),
    ("grpc://db:13000", "grpc://db:13000"),
    ("s3://bucket/a/b", "s3://bucket/a/b"),
])
def test_a_password_is_masked_and_nothing_else(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert masked(shown) == shown


def test_a_message_loses_what_is_secret_in_the_url() -> None:
    url = "postgresql://me:secret@db/studies"
    assert without_secrets(f"cannot open {url} with 'secret'", url) == (
        "cannot open postgresql://me:***@db/studies with '***'")


def test_which_urls_are_databases_and_which_places_are_urls() -> None:
    assert all(map(is_database, ("postgresql://db/a", "postgresql+psycopg://db/a", "sqlite:///a.db", "grpc://db:1")))
    assert not any(map(is_database, ("postgres://db/a", "grpc://db", "redis://db", "a.db", "")))
    assert is_url("s3://bucket")
    assert not is_url("/mnt/shared")
    assert not is_url("C:\\store")
