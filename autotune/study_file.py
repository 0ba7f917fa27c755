"""The keys of a study.yaml and what each takes, as pydantic models; what needs the world is checked in config.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, field_serializer, field_validator, model_validator

from autotune.config_errors import wrong
from autotune.errors import nearest
from autotune.storage.urls import DATABASES, is_database, masked

Text = Annotated[str, Strict(), Field(min_length=1)]
Count = Annotated[int, Strict(), Field(ge=1)]
Whole = Annotated[int, Strict(), Field(ge=0)]
Flag = Annotated[bool, Strict()]
Policy = Literal["most-accurate", "fastest", "smallest", "knee"]


#: What `parse_duration` takes, for messages.
DURATIONS = "such as 90s, 15m or 1h30m"


def parse_duration(text: str) -> float:
    """``1h30m``, ``15m``, ``90s`` → seconds.

    Raises:
        ValueError: of another form, or zero.
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    parts = match.groups() if match else ()
    seconds = sum(int(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=bool(parts)))
    if not seconds:
        raise ValueError(repr(text))
    return float(seconds)


def _require_duration(field: str, text: str | None) -> None:
    try:
        parse_duration(text or "1s")
    except ValueError as error:
        raise wrong(field, str(error), DURATIONS) from None


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSection(_Section):
    train: Text
    valid: Text | None = None
    test: Text | None = None
    prompt: Text
    answer: Text
    chat: Flag = False
    task: Literal["choice", "generate"]
    labels: Annotated[tuple[Text, ...], Field(min_length=2)] | None = None
    max_new_tokens: Count = 64
    stop: tuple[Text, ...] = ()
    max_tokens: Count = 1024

    @model_validator(mode="after")
    def _labels_fit(self) -> DataSection:
        if self.labels and self.task == "generate":
            raise wrong("labels", "given for task generate", "labels for task choice alone")
        if self.labels and len(set(self.labels)) < len(self.labels):
            raise wrong("labels", "a label twice", "each label once")
        return self


class WorkloadSection(_Section):
    """What latency is measured on: fixed lengths, or the validation rows' own prompts."""

    prompt_tokens: Count | None = None
    new_tokens: Count | None = None
    from_: Literal["valid"] | None = Field(default=None, alias="from")
    samples: Annotated[int, Strict(), Field(ge=5)] = 20

    @model_validator(mode="after")
    def _one_kind(self) -> WorkloadSection:
        if self.from_ and self.prompt_tokens:
            raise wrong("prompt_tokens", "given beside from", "one of them")
        if not self.from_ and not (self.prompt_tokens and self.new_tokens):
            raise wrong("", "neither both lengths nor from", "{prompt_tokens: N, new_tokens: M} or {from: valid}")
        return self


def _require_device(host: str, python: str | None) -> None:
    if python and host == "local":
        raise wrong("python", "given for this machine", "a device as host beside it, or no python")


class TargetSection(_Section):
    provider: Literal["cpu", "cuda", "dml"] = "cpu"
    provider_options: dict[str, str] = Field(default_factory=dict)
    threads: Count
    host: Text = "local"
    python: Text | None = None
    workload: WorkloadSection
    context_length: Annotated[int, Strict(), Field(ge=16)] | None = None

    @model_validator(mode="after")
    def _workload_fits(self) -> TargetSection:
        tokens = (self.workload.prompt_tokens or 0) + (self.workload.new_tokens or 0)
        if self.context_length and tokens > self.context_length:
            raise wrong("context_length", str(self.context_length), f"at least the workload's {tokens} tokens")
        _require_device(self.host, self.python)
        return self


class DeviceSection(_Section):
    """A further device, on which every artifact is measured too, at the target's workload."""

    host: Text
    python: Text | None = None
    provider: Literal["cpu", "cuda", "dml"] = "cpu"
    provider_options: dict[str, str] = Field(default_factory=dict)
    threads: Count

    @model_validator(mode="after")
    def _python_is_there(self) -> DeviceSection:
        _require_device(self.host, self.python)
        return self


class MetricSection(_Section):
    metric: Text
    direction: Literal["maximize", "minimize"] = "maximize"


class BudgetSection(_Section):
    adapters: Count | None = None
    trials: Count | None = None
    time: Text | None = None

    @model_validator(mode="after")
    def _a_duration(self) -> BudgetSection:
        _require_duration("time", self.time)
        return self


class TrainingSection(_Section):
    seed: Whole = 0
    threads: Count | None = None


class CertificateSection(_Section):
    """How the finalists are measured again once the search is over; no finalists, no certificate."""

    finalists: Annotated[int, Strict(), Field(ge=0, le=10)] = 3
    time: Text = "5m"
    sustain: Text | None = None

    @model_validator(mode="after")
    def _durations(self) -> CertificateSection:
        _require_duration("time", self.time)
        _require_duration("sustain", self.sustain)
        return self


class RepeatsSection(_Section):
    """How many of the best adapters are trained again once the search is over, and with how many seeds in all."""

    adapters: Annotated[int, Strict(), Field(ge=1, le=10)] = 3
    seeds: Annotated[int, Strict(), Field(ge=2, le=10)] = 3


#: What a stage needs of a Ray node: ``cpu``, ``gpu``, ``memory`` in bytes, or a name that nodes offer.
Needs = dict[Text, Annotated[float, Field(gt=0)]]


class ResourcesSection(_Section):
    """What each kind of stage needs: making things, training adapters, answering rows, timing requests."""

    build: Needs = Field(default_factory=dict)
    train: Needs = Field(default_factory=dict)
    answers: Needs = Field(default_factory=dict)
    probe: Needs = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_measurement_a_device(self) -> ResourcesSection:
        for name, amount in self.probe.items():
            if name.startswith("device:") and amount != 1:
                raise wrong(f"probe.{name}", f"{amount:g}", "1: latency is measured once at a time on a device")
        return self


class RaySection(_Section):
    """Ray: ``count`` pieces of work at a time, in the cluster at ``address`` or in one of our own on this machine."""

    address: Text | None = None
    count: Annotated[int, Strict(), Field(ge=1, le=1000)] = 2
    resources: ResourcesSection = Field(default_factory=ResourcesSection)


class WorkersSection(_Section):
    """Who does the work: without ``ray`` one process on this machine."""

    ray: RaySection | None = None


#: Keys of a study that change nothing of what is tried: how long it goes on, who works and where, and what follows.
MAY_CHANGE = ("budget", "certificate", "repeats", "workers", "store")


class StudyFile(_Section):
    """The keys of a study.yaml."""

    name: Annotated[str, Strict(), Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    model: Text
    data: DataSection
    target: TargetSection
    devices: Annotated[dict[str, DeviceSection], Field(min_length=1)] | None = None
    space: Any
    objectives: Annotated[tuple[str | MetricSection, ...], Field(min_length=1)]
    constraints: tuple[Text, ...] = ()
    confidence: Annotated[float, Strict(), Field(gt=0.5, lt=1)] = 0.95
    policy: Policy = "most-accurate"
    budget: BudgetSection = Field(default_factory=lambda: BudgetSection(adapters=8))
    seed: Whole = 0
    early_stop_error: Annotated[float, Strict(), Field(ge=0, le=0.1)] = 0.002
    training: TrainingSection = TrainingSection()
    baseline: Literal["tuned", "base"] = "tuned"
    rungs: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (0.2, 0.4, 1.0)
    certificate: CertificateSection = CertificateSection()
    repeats: RepeatsSection | None = None
    workers: WorkersSection = Field(default_factory=WorkersSection)
    storage: Text | None = Field(default=None, repr=False)
    store: Text | None = Field(default=None, repr=False)

    @field_validator("devices", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        for name in given if isinstance(given, Mapping) else ():
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise wrong(str(name), "no name for a device", "letters, digits and '_', no digit first, such as pi_4")
        return given

    @field_validator("workers", mode="before")
    @classmethod
    def _workers_by_name(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "ray" in given and given["ray"] is None:
            return {**given, "ray": {}}
        if given in ("local", "ray"):
            return {"ray": {}} if given == "ray" else {}
        if not isinstance(given, Mapping | WorkersSection):
            raise wrong("", repr(given) + nearest(str(given), ("local", "ray")), "local, ray, or {ray: {count: 2, …}}")
        return given

    @field_validator("storage")
    @classmethod
    def _a_database(cls, given: str | None) -> str | None:
        if given is not None and not is_database(given):
            raise wrong("", masked(given), DATABASES)
        return given

    @field_serializer("storage", "store")
    def _without_password(self, given: str | None) -> str | None:
        return masked(given) if given else given

    @model_validator(mode="after")
    def _rungs_climb(self) -> StudyFile:
        if list(self.rungs) != sorted(set(self.rungs)) or self.rungs[-1] != 1:
            raise wrong("rungs", str(list(self.rungs)), "ascending shares of an adapter's steps, the last one 1")
        return self
