"""URLs of databases and stores: which are accepted, and how they are shown without the passwords in them."""

from __future__ import annotations

import re

DATABASES = ("a database that Optuna opens: postgresql://USER@HOST/NAME, mysql+pymysql://USER@HOST/NAME, "
             "sqlite:///FILE, or its proxy, grpc://HOST:PORT")
HIDDEN = "***"
_DATABASE = re.compile(r"(postgresql|mysql|mariadb|sqlite)(\+\w+)?://.*|grpc://[^/@\s]+:\d+/?")
#: The user's name ends at the first colon, a password at the last @: it may hold any other sign, rightly or not.
_PASSWORD = re.compile(r"(?<=://)([^:/@]*):(.*)@")
_SECRET = re.compile(r"(?<=[?&])([^=&]*(?:password|secret|token|key)[^=&]*)=([^&]*)", re.IGNORECASE)


def is_database(url: str) -> bool:
    """Whether ``storage`` may be this URL."""
    return _DATABASE.fullmatch(url) is not None


def is_url(place: str) -> bool:
    """Whether a place of a store is a URL; else it is a folder."""
    return re.match(r"[a-z][a-z0-9+.-]*://", place) is not None


def masked(url: str) -> str:
    """The URL with ``***`` for a password and for other secrets in it."""
    return _SECRET.sub(rf"\1={HIDDEN}", _PASSWORD.sub(rf"\1:{HIDDEN}@", url))


def without_secrets(text: str, url: str) -> str:
    """A message, such as a driver's, that may repeat what is secret in the URL, without it."""
    secrets = [found[2] for pattern in (_PASSWORD, _SECRET) for found in pattern.finditer(url) if found[2]]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text.replace(url, masked(url))
