"""The user's devices file: names for addresses, so that a study may say ``host: pi``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator

from autotune.config_errors import UniqueKeyLoader, problems_of, unknown_keys, wrong
from autotune.errors import ConfigError, Problem, nearest
from autotune.storage.garbage import SIZES, parse_size
from autotune.targets.address import ACCEPTED, LOCAL, NAME, Place, parse_address

VARIABLE = "AUTOTUNE_DEVICES"
Text = Annotated[str, Strict(), Field(min_length=1)]

EXAMPLE = "pi: {host: ssh://pi@192.168.1.20, quota: 4GB}"


class DeviceEntry(BaseModel):
    """What the file says of one device; the defaults are those of `autotune.targets.address.Place`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Text
    python: Text | None = None
    folder: Text = Place.folder
    quota: Text = "8GB"

    @field_validator("host")
    @classmethod
    def _an_address(cls, text: str) -> str:
        try:
            parse_address(text)
        except ValueError as error:
            raise wrong("", str(error), ACCEPTED) from None
        return text

    @field_validator("quota")
    @classmethod
    def _a_size(cls, text: str) -> str:
        try:
            parse_size(text)
        except ValueError as error:
            raise wrong("", str(error), SIZES) from None
        return text


def devices_path(environment: Mapping[str, str]) -> Path:
    """``$AUTOTUNE_DEVICES``, else ``devices.yaml`` in the user's configuration folder."""
    if environment.get(VARIABLE):
        return Path(environment[VARIABLE]).expanduser()
    folder = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(folder) / "autotune" / "devices.yaml"


def read_devices(path: Path) -> dict[str, Place]:
    """The devices by name; none where there is no file. Raises ConfigError with everything that is wrong in it."""
    raw = _loaded(path)
    places, problems = {}, []
    for name, about in raw.items():
        if not isinstance(name, str) or not NAME.fullmatch(name) or name == LOCAL:
            problems.append(Problem(str(path), str(name), "no name for a device",
                                    "letters, digits, '.', '_' and '-'; and not 'local'"))
            continue
        problems += [Problem(str(path), *p) for p in unknown_keys(about, DeviceEntry, f"{name}.")]
        try:
            entry = DeviceEntry.model_validate(about)
        except ValidationError as error:
            problems += [Problem(str(path), f"{name}.{p[0]}".rstrip("."), *p[1:]) for p in problems_of(error)]
            continue
        places[name] = Place(name, parse_address(entry.host), entry.python, entry.folder, parse_size(entry.quota))
    if problems:
        raise ConfigError(problems)
    return places


def find_place(host: str, python: str | None, *, file: str, where: str) -> Place:
    """The device that ``host`` names, an address or a name from the devices file; ``python`` wins over the file's.

    Raises ConfigError, which calls the place of ``host`` by ``file`` and ``where``.
    """
    if "://" in host or "@" in host:
        try:
            return Place(host, parse_address(host), python)
        except ValueError as error:
            raise ConfigError([Problem(file, where, str(error), ACCEPTED)]) from None
    path = devices_path(os.environ)
    known = read_devices(path)
    if host not in known:
        names = ", ".join(known) or "none yet"
        raise ConfigError([Problem(file, where, f"{host!r}{nearest(host, known)}",
                                   f"{ACCEPTED}; or a name from {path} ({names})")])
    place = known[host]
    return Place(place.name, place.address, python or place.python, place.folder, place.quota)


def _loaded(path: Path) -> Mapping[Any, Any]:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=UniqueKeyLoader)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        found = getattr(error, "strerror", None) or getattr(error, "problem", None) or "not UTF-8"
        raise ConfigError([Problem(str(path), f"line {mark.line + 1}" if mark else "", str(found),
                                   f"YAML, a line a device: {EXAMPLE}")]) from None
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise ConfigError([Problem(str(path), "", f"a {type(raw).__name__}", f"a mapping, such as {EXAMPLE}")])
    return raw
