"""What a trial is once measured: plain records that ledger, loop and reports share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from autotune.pareto import Candidate
from autotune.stats import Measurement
from autotune.store import Key
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

State = Literal["COMPLETE", "PRUNED", "FAILED", "RUNNING"]
#: The stage that a trial is said to have failed at when its process ended under it.
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class TrialRecord:
    """One visible trial. ``adapter_key`` names its adapter in the store; ``failure`` is (stage, reason)."""

    number: int
    state: State
    adapter: AdapterParams
    deploy: DeployParams
    adapter_key: str | None
    values: Mapping[str, Measurement]
    stages: Mapping[str, Mapping[str, Any]]
    artifact: Key | None
    failure: tuple[str, str] | None
    rungs: Sequence[Mapping[str, Any]] = ()

    @property
    def pair(self) -> tuple[AdapterParams, DeployParams]:
        return self.adapter, self.deploy

    @property
    def interrupted(self) -> bool:
        """Left behind by a process that ended, or still running: not a result."""
        return self.state == "RUNNING" or (self.failure is not None and self.failure[0] == INTERRUPTED)

    def candidate(self) -> Candidate:
        return Candidate(self.number, {key: m.value for key, m in self.values.items()})


@dataclass(frozen=True)
class StageRecord:
    """A stage of a trial: its key in the store, its seconds, and whether it was there already."""

    key: str
    seconds: float
    cached: bool


@dataclass(frozen=True)
class Scored:
    """A measured pair: every number by key, the stages it took, the artifact's key."""

    values: Mapping[str, Measurement]
    stages: Mapping[str, StageRecord]
    artifact: Key
