"""Everything autotune raises on purpose.

::

    AutotuneError                    exit 1 unless a subclass says otherwise
    ├── InputError                   exit 2: something the user wrote; carries every problem found
    │   ├── ConfigError              the study.yaml
    │   ├── DataError                rows of a data file
    │   └── BaseModelError           the base model cannot be used, said before work starts
    ├── StageError                   one stage of one trial failed: the trial is recorded, the study goes on
    │   ├── TrainingError            the loss diverged, or training could not run
    │   ├── AssemblyError            the artifact could not be made
    │   ├── ExportError              the artifact disagrees with the PyTorch model
    │   ├── ProbeError               the artifact could not be measured
    │   └── ScoreError               a metric of its answers could not be computed
    ├── StudyError                   the study as a whole cannot go on
    │   └── DeviceError              the device that it measures on cannot be reached or used; it goes on later
    └── TrackingError                a tracking server did not take a run; the run itself is whole
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong with what the user gave.

    ``where`` is a field (``target.threads``) or a line (``line 12``) inside ``file``.
    """

    file: str
    where: str
    found: str
    accepted: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.where}" if self.where else self.file
        return f"{place}: {self.found}; accepted: {self.accepted}"


class AutotuneError(Exception):
    exit_code = 1


class InputError(AutotuneError):
    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class ConfigError(InputError):
    pass


class DataError(InputError):
    pass


class BaseModelError(InputError):
    pass


class StageError(AutotuneError):
    """``stage`` is the stage's name as in results.json; ``reason`` is one sentence without a stack trace."""

    stage = "stage"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def __reduce__(self) -> tuple[type[StageError], tuple[str]]:
        return type(self), (self.reason,)


class TrainingError(StageError):
    stage = "train"


class AssemblyError(StageError):
    stage = "assemble"


class ExportError(StageError):
    stage = "verify"


class ProbeError(StageError):
    stage = "probe"


class ScoreError(StageError):
    stage = "score"


class StudyError(AutotuneError):
    pass


class DeviceError(StudyError):
    """``device`` is the device as the user names it, ``where`` what of it is at fault."""

    def __init__(self, device: str, where: str, found: str, accepted: str) -> None:
        self.problem = Problem(device, where, found, accepted)
        super().__init__(str(self.problem))

    def __reduce__(self) -> tuple[type[DeviceError], tuple[str, str, str, str]]:
        return type(self), (self.problem.file, self.problem.where, self.problem.found, self.problem.accepted)


class TrackingError(AutotuneError):
    pass


def nearest(name: str, accepted: Iterable[str]) -> str:
    """``', did you mean 'rank'?'`` for the accepted name closest to a typo, or an empty string."""
    close = difflib.get_close_matches(name, list(accepted), n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else ""
