"""One thing that was looked at, and the sentence that sums up all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: ``note``: worth knowing. ``warning``: figures or comfort suffer. ``problem``: a run would fail.
State = Literal["ok", "note", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """``found`` is what is there. Of a warning or a problem, ``affects`` says what suffers and ``mend`` is the command,
    or the change, that helps."""

    topic: str
    name: str
    found: str
    state: State = "ok"
    affects: str = ""
    mend: str = ""


def sentence(findings: Sequence[Finding]) -> str:
    """``Studies run here; 2 warnings, …``."""
    problems = [f.name for f in findings if f.state == "problem"]
    warnings = sum(f.state == "warning" for f in findings)
    warned = f"{warnings} warning{'s' * (warnings != 1)}"
    if problems:
        counted = f"{len(problems)} problem{'s' * (len(problems) != 1)} ({', '.join(problems)})"
        return f"A run would fail here: {counted}{f', and {warned}' if warnings else ''}."
    return f"Studies run here, with {warned}." if warnings else "All is well: studies run here."
