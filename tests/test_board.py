"""What a system tells of its machine."""

from __future__ import annotations

from pathlib import Path

from objectives.board import memory_mb, package_version, read, temperature_c


def zone(folder: Path, number: int, kind: str, temp: str) -> None:
    made = folder / f"thermal_zone{number}"
    made.mkdir()
    (made / "type").write_text(f"{kind}\n")
    (made / "temp").write_text(f"{temp}\n")


def test_the_hottest_zone_of_the_processor_counts(tmp_path: Path) -> None:
    assert temperature_c(tmp_path) is None
    zone(tmp_path, 0, "cpu-thermal", "48312")
    zone(tmp_path, 1, "cpu-big", "51000")
    zone(tmp_path, 2, "battery", "90000")
    zone(tmp_path, 3, "soc-thermal", "nonsense")
    assert temperature_c(tmp_path) == 51.0


def test_device_tree_texts_lose_their_last_byte(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert read(str(tmp_path / "model")) == "Raspberry Pi 5 Model B Rev 1.0"
    assert read(str(tmp_path / "none")) is None


def test_memory_and_packages() -> None:
    total = memory_mb("MemTotal")
    assert total is None or total > 100
    assert package_version("no-such-distribution", "numpy") == package_version("numpy")
    assert package_version("no-such-distribution") is None
