"""What a device has, held against what measuring takes."""

from __future__ import annotations

from typing import Any

import pytest

from autotune.errors import DeviceError
from autotune.targets.checks import Check, accepted_versions, checks, require

PROVIDERS = {"found": {"cpu": True, "cuda": False, "dml": False}, "problem": None}


def facts(libraries: dict[str, str | None] | None = None, now: dict[str, Any] | None = None, **lasting: Any
          ) -> dict[str, Any]:
    have = {"numpy": "2.4.6", "psutil": "7.2.0", "onnxruntime": "1.32.0", "onnxruntime-genai": "0.18.0"}
    return {
        "lasting": {"id": "abc", "board": "Raspberry Pi 5", "cpu": None, "cores": 4, "memory_gb": 8.0, "bits": 64,
                    "platform": "Linux-6.6", "architecture": "aarch64", "governor": "performance", "python": "3.11.2",
                    "libraries": {**have, **(libraries or {})}, **lasting},
        "now": {"time": 1_000_000.0, "disk_free_mb": 9000, "memory_available_mb": 7000, "load": 0.0,
                "temperature_c": 45.0, **(now or {})},
    }


def found(provider: str = "cpu", providers: Any = PROVIDERS, **changes: Any) -> dict[str, Check]:
    return {check.name: check for check in checks("pi", facts(**changes), provider, providers, now=1_000_000.0)}


def test_a_device_that_has_all_is_well() -> None:
    assert {check.state for check in found().values()} == {"ok"}
    assert found()["board"].found == "Raspberry Pi 5"


def test_what_is_missing_is_told_together_with_the_command() -> None:
    listed = list(found(libraries={"onnxruntime": None, "onnxruntime-genai": None}).values())
    with pytest.raises(DeviceError, match=r"pi: onnxruntime, onnxruntime-genai: onnxruntime is not installed; "
                       r"onnxruntime-genai is not installed; accepted: .*autotune device setup pi"):
        require("pi", listed)


def test_an_older_runtime_is_refused_and_a_newer_one_noted() -> None:
    if not str(accepted_versions("onnxruntime")):
        pytest.skip("the ranges are in the metadata of an installed autotune")
    older = found(libraries={"onnxruntime": "1.20.1"})["onnxruntime"]
    assert older.state == "problem"
    assert older.found == "onnxruntime 1.20.1"
    assert "autotune device setup pi" in older.accepted
    assert found(libraries={"onnxruntime": "9.1"})["onnxruntime"].state == "note"


@pytest.mark.parametrize("wrong", [{"architecture": "armv7l", "bits": 32}, {"bits": 32}])
def test_an_architecture_without_packages(wrong: dict[str, Any]) -> None:
    check = found(libraries={"onnxruntime-genai": None}, **wrong)["architecture"]
    assert check.state == "problem"
    assert "64-bit system" in check.accepted
    assert found(**wrong)["architecture"].state == "ok"  # someone built it there


def test_a_provider_that_is_not_there() -> None:
    check = found(provider="cuda")["provider"]
    assert (check.state, check.found) == ("problem", "cpu, not cuda")
    broken = found(providers={"found": {}, "problem": "ImportError: libstdc++.so.6"})["onnxruntime-genai"]
    assert "libstdc++" in found(providers={"found": {}, "problem": "ImportError: libstdc++.so.6"})[
        "onnxruntime-genai"].found
    assert broken.state == "problem"


@pytest.mark.parametrize(("now", "name", "state", "words"), [
    ({"time": 0.0}, "clock", "note", "says 1970-01-01, 12 days behind"),
    ({"load": 2.5}, "load", "warning", "2.5 processes"),
    ({"temperature_c": 82.0}, "temperature", "warning", "82 °C"),
    ({"load": None}, "load", "ok", "not told"),
])
def test_what_makes_figures_worse_is_told(now: dict[str, Any], name: str, state: str, words: str) -> None:
    check = found(now=now)[name]
    assert check.state == state
    assert words in check.found


def test_a_governor_that_follows_the_load_is_noted() -> None:
    check = found(governor="ondemand")["governor"]
    assert check.state == "note"
    assert "performance" in check.accepted
