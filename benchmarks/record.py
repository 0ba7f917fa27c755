"""Appends a benchmark's figures to RESULTS.md: the command, the machine and the versions, then its lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autotune.run_folder import environment

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
SHOWN = ("torch", "transformers", "peft", "onnxruntime", "onnxruntime-genai")


def record(title: str, command: str, note: str, lines: Sequence[str], file: Path = RESULTS) -> None:
    about = environment()
    versions = ", ".join(f"{name} {about['libraries'][name]}" for name in SHOWN)
    text = "\n".join([f"\n## {title}: `{command}`\n", f"{about['cpu']}, {about['cores']} cores, {about['memory_gb']} "
                      f"GB; {versions}. {note}\n", *lines, ""])
    with file.open("a", encoding="utf-8") as results:
        results.write(text)
