"""Python and the libraries: what is installed against the ranges that autotune's own metadata state."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable, Sequence
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from autotune.doctor.finding import Finding
from objectives.board import BUILDS

TOPIC = "libraries"
DISTRIBUTION = "autotune-edge"
_UNSHOWN = "test"  # who runs a study needs none of it
#: Distributions that bring the same module for other hardware.
_STANDS_IN = {name: builds[1:] for name, builds in BUILDS.items()}
Version = Callable[[str], str | None]


def installed(name: str) -> str | None:
    """A distribution's version, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def libraries() -> list[Finding]:
    """A finding for Python, each library, and each optional one that is installed."""
    try:
        found = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return [Finding(TOPIC, DISTRIBUTION, "not installed as a package", "warning",
                        "the versions of its libraries cannot be checked", "pip install -e .")]
    python = python_version(_first(found, "Requires-Python"), platform.python_version())
    extras = found.metadata.get_all("Provides-Extra") or []
    return [python, *requirements(found.requires or [], extras, installed)]


def python_version(accepted: str, version: str) -> Finding:
    if SpecifierSet(accepted).contains(version, prereleases=True):
        return Finding(TOPIC, "python", f"{version} ({accepted or 'any'})")
    return Finding(TOPIC, "python", f"{version}; accepted: {accepted}", "problem", "everything",
                   "python3.12 -m venv .venv && .venv/bin/pip install autotune-edge")


def requirements(stated: Sequence[str], extras: Sequence[str], version: Version) -> list[Finding]:
    """``stated`` are requirements as metadata hold them; ``version`` says what is installed of a name."""
    found = []
    for requirement in map(Requirement, stated):
        extra = _extra(requirement, extras)
        if extra == _UNSHOWN or (requirement.marker and not requirement.marker.evaluate({"extra": extra or ""})):
            continue
        if extra is None or version(requirement.name) is not None:
            found.append(_library(requirement, extra, version))
    return found


def _extra(requirement: Requirement, extras: Sequence[str]) -> str | None:
    """The extra that a requirement belongs to, None for one that everybody needs."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        return None
    return next((extra for extra in extras if requirement.marker.evaluate({"extra": extra})), None)


def _library(requirement: Requirement, extra: str | None, version: Version) -> Finding:
    accepted = _range(requirement)
    names = (requirement.name, *_STANDS_IN.get(requirement.name, ()))
    name, here = next(((n, v) for n in names if (v := version(n)) is not None), (requirement.name, None))
    install = f"pip install {shlex.quote(f'{name}{accepted}')}"
    if here is None:
        return Finding(TOPIC, name, f"not installed; accepted: {accepted}", "problem", "every run", install)
    title = name if extra is None else f"{name} (extra {extra})"
    if requirement.specifier.contains(here, prereleases=True):
        return Finding(TOPIC, title, f"{here} ({accepted or 'any'})")
    return Finding(TOPIC, title, f"{here}; accepted: {accepted}", "warning",
                   "autotune was never tested with it: stages may fail, or figures differ", install)


def _range(requirement: Requirement) -> str:
    return ",".join(sorted(map(str, requirement.specifier), reverse=True))


def _first(found: metadata.Distribution, field: str) -> str:
    return next(iter(found.metadata.get_all(field) or [""]), "")
