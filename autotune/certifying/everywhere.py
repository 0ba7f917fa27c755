"""One finalist measured anew on the target and on every further device, as one piece of evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autotune.certifying.certificate import Evidence, OnDevice
from autotune.certifying.examine import Examiner, Seen
from autotune.constraints import Constraint
from autotune.errors import AutotuneError, DeviceError, ProbeError
from autotune.stats import Measurement
from autotune.targets.several import Site, tried
from autotune.trials import TrialRecord
from objectives.base import PER_DEVICE, name_of


class EveryDevice:
    """``examiners`` are one for each device of the study, the target's first."""

    def __init__(self, examiners: Sequence[Examiner]) -> None:
        self._by_name = {each.site.name: each for each in examiners}
        self._target = examiners[0]
        self._away: str | None = None

    @property
    def rows(self) -> int:
        """How many rows the test split has."""
        return self._target.rows

    @property
    def measured_on(self) -> list[Mapping[str, Any]]:
        """The fingerprints of all devices, as measurements are named by them, the target's first."""
        return [each.site.fingerprint for each in self._by_name.values()]

    def evidence(
        self, record: TrialRecord, confidence: float, constraints: Sequence[Constraint], spare_s: float = 0.0
    ) -> Evidence:
        """What decides about one trial, its intervals at ``confidence``; timed ``spare_s`` longer on the target.

        A further device that is away settles nothing for any finalist: without its part there is no certificate, and
        the others are not measured in vain. Raises StageError.
        """
        if self._away:
            raise ProbeError(self._away)
        sites = [each.site for each in self._by_name.values()]
        found = tried(sites, lambda site: self._by_name[site.name].seen(
            record, confidence, constraints, 0.0 if site.name else spare_s))
        for name, outcome in found.items():
            if name and isinstance(outcome, DeviceError):
                self._away = str(outcome)
                raise ProbeError(self._away) from outcome
            if isinstance(outcome, AutotuneError):  # the target's ends the run where it is away, as in the search
                raise outcome
        seen = {name: outcome for name, outcome in found.items() if isinstance(outcome, Seen)}
        there = [(site, seen[site.name]) for site in sites[1:]]
        return merged(seen[""], self._target.logits(record), there)


def merged(here: Seen, logits: Mapping[str, Any], there: Sequence[tuple[Site, Seen]]) -> Evidence:
    """The target's part with the further devices' values and limits beside its own."""
    values, tested = dict(here.values), dict(here.tested)
    for site, seen in there:
        values |= _suffixed(site, seen.values)
        tested |= {expr: replace(found, what=_renamed(site, found.what)) for expr, found in seen.tested.items()}
    return Evidence(values, tested, here.timing, logits, {site.name: _part(here, seen) for site, seen in there})


def _part(here: Seen, seen: Seen) -> OnDevice:
    differ = sum(mine != theirs for mine, theirs in zip(seen.told, here.told, strict=True))
    return OnDevice(seen.values, seen.timing, len(seen.told), differ, sum(seen.right), sum(here.right))


def _suffixed(site: Site, values: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """What the device shapes; answers and size are told apart in its own part."""
    return {site.key(key): value for key, value in values.items() if name_of(key) in PER_DEVICE}


def _renamed(site: Site, what: str) -> str:
    """``latency_ms.p95 as a share of the baseline's`` begins with the key, which gets the device's name."""
    key, space, rest = what.partition(" ")
    return f"{site.key(key)}{space}{rest}"
