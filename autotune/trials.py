"""What a trial is once measured: plain records that ledger, loop and reports share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from autotune.pareto import Candidate, Miss
from autotune.stats import Measurement
from autotune.storage.entry_key import Key
from objectives.steadiness import Steadiness
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

State = Literal["COMPLETE", "PRUNED", "FAILED", "RUNNING"]
#: The stage that a trial is said to have failed at when its process ended under it.
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class TrialRecord:
    """One visible trial. ``adapter_key`` names its adapter in the store; ``failure`` is (stage, reason).

    A pruned trial's ``failure`` says why it was ended; its accuracy is that of the rows until then.
    """

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
    on_base: frozenset[str] = frozenset()

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
class Timed:
    """How far a latency can be trusted, and its ratios to that of the artifact of the point ``reference`` by key;
    None and empty where it was timed alone."""

    steadiness: Steadiness
    reference: str | None
    ratios: Mapping[str, Measurement]


def doubts(timed: Timed | None, elsewhere: Mapping[str, Timed]) -> dict[str, str]:
    """Where the latency of something cannot be relied on: by device, the target's name empty, the sentence why."""
    return {device: found.steadiness.sentence() for device, found in {"": timed, **elsewhere}.items()
            if found and found.steadiness.state != "steady"}


@dataclass(frozen=True)
class Screened:
    """A deploy point's latency, memory and size on base weights, as far as they do not depend on the adapter.

    ``timed`` is None where no latency was measured; ``elsewhere`` is the same by further device.
    """

    point: DeployParams
    values: Mapping[str, Measurement]
    stages: Mapping[str, StageRecord]
    timed: Timed | None = None
    elsewhere: Mapping[str, Timed] = field(default_factory=dict)


@dataclass(frozen=True)
class Dropped:
    """A point that no adapter can save, and why; ``screened`` is None where it could not even be measured."""

    point: DeployParams
    reason: str
    screened: Screened | None = None


@dataclass(frozen=True)
class Screening:
    """The deploy points before any training. Where ``kept`` is empty, ``miss`` tells the nearest limit; its
    ``trial`` is an index into ``dropped``."""

    kept: tuple[Screened, ...]
    dropped: tuple[Dropped, ...]
    miss: Miss | None = None


@dataclass(frozen=True)
class Stopped:
    """Scoring that ended early: ``right`` of the first ``answered`` rows, when ``needed`` of ``rows`` would matter.

    ``error`` bounds the chance that all rows would have given ``needed`` after all.
    """

    answered: int
    rows: int
    right: int
    needed: int
    error: float

    def sentence(self) -> str:
        return (f"stopped after {self.answered} of {self.rows} rows: {self.right} right, where {self.needed} of all "
                f"would matter (chance of a wrong stop at most {self.error:g})")


@dataclass(frozen=True)
class Scored:
    """A measured pair: every number by key, the stages it took, the artifact's key.

    ``on_base`` names the values that were measured on base weights, as they depend on the deploy point alone.
    ``timed``, and ``elsewhere`` by further device, are there where latency is the pair's own. ``answers``
    are the texts given, one a validation row; none where scoring was stopped.
    """

    values: Mapping[str, Measurement]
    stages: Mapping[str, StageRecord]
    artifact: Key
    on_base: frozenset[str] = frozenset()
    stopped: Stopped | None = None
    timed: Timed | None = None
    answers: tuple[str, ...] = ()
    elsewhere: Mapping[str, Timed] = field(default_factory=dict)
