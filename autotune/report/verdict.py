"""What a run came to, in a headline and a sentence: the same words on the terminal and on a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotune.finished import FinishedRun
from autotune.report.told import searched


@dataclass(frozen=True)
class Answer:
    """``verdict`` is the certificate's, or empty where none was made; ``sentences`` has at least one, the answer
    itself first. ``trial`` is the chosen one, else the nearest to the limits, else None."""

    verdict: str
    headline: str
    sentences: tuple[str, ...]
    trial: int | None


def answer(run: FinishedRun) -> Answer:
    """The certificate's answer, or the search's where there is none."""
    certificate, miss = run.document.get("certificate"), run.document["nearest_miss"]
    trial = run.selected if run.selected is not None else miss["trial"] if miss else None
    if certificate:
        return _certified(run, certificate, trial)
    if run.selected is not None:
        label = run.trial(run.selected).deploy_point
        return Answer("", f"{label} is chosen; nothing was certified", (searched(run.document),), trial)
    if not run.trials and run.document.get("dropped"):
        return Answer("FAIL", "No artifact can meet the limits", (searched(run.document),), None)
    headline = "Nothing meets the limits" if miss else "No trial was completed"
    return Answer("FAIL", headline, (searched(run.document),), trial)


def _certified(run: FinishedRun, certificate: Mapping[str, Any], trial: int | None) -> Answer:
    verdict = str(certificate["verdict"])
    label = run.trial(trial).deploy_point if trial is not None else "the finalist"
    limits = "meets every limit" if run.constraints else "is measured anew"
    headline = {
        "PASS": f"{label} {limits}",
        "INCONCLUSIVE": f"Not settled whether {label} meets the limits",
        "FAIL": "Measured again, nothing meets the limits",
    }[verdict]
    lines = [str(line).strip() for line in certificate.get("text") or ()] or [headline + "."]
    if verdict == "PASS":  # what was passed over comes before it
        lines = [lines[-1], *lines[:-1]]
    return Answer(verdict, headline, tuple(lines), trial)
