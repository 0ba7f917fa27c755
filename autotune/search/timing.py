"""An artifact timed where the study measures: on its target and on each further device."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune import answers
from autotune.errors import StageError
from autotune.pipeline import stages
from autotune.preparation import Prepared
from autotune.questions import (
    Questions,
    Reference,
    latency_task,
    probe_request,
    room_for,
    screening_seconds,
)
from autotune.stats import Measurement
from autotune.storage import keys
from autotune.storage.entry_key import Key
from autotune.storage.stage_runner import StageRunner
from autotune.storage.store import Entry
from autotune.targets.several import Site, side_by_side
from autotune.trials import Timed
from objectives.base import on_device
from objectives.size import size_bytes
from search_spaces.deploy import DeployParams


@dataclass(frozen=True)
class Times:
    """Values by key, those of further devices with their names; ``elsewhere`` are by device, ``entries`` by stage."""

    values: Mapping[str, Measurement]
    timed: Timed | None
    elsewhere: Mapping[str, Timed] = field(default_factory=dict)
    entries: Mapping[str, Entry] = field(default_factory=dict)


class Timer:
    """``sites`` are the target and the further devices. ``point`` gives the base's own artifact at a deploy point,
    ``point_key`` its key."""

    def __init__(
        self, prepared: Prepared, questions: Questions, run: StageRunner, sites: Sequence[Site],
        point: Callable[[DeployParams], Entry], point_key: Callable[[DeployParams], Key],
    ) -> None:
        self._at, self._ask, self._run, self._sites = prepared, questions, run, tuple(sites)
        self._point, self._point_key = point, point_key

    def times(self, artifact: Key, folder: Path, point: DeployParams, by_turns: bool = False) -> Times:
        """Latency, memory and load time on every device, ``by_turns`` with the base's own at the smallest point.

        Raises StageError, for a further device with its name.
        """
        confidence, pace = self._ask.confidence, self._at.pace.label
        made = side_by_side(self._sites, lambda site: self._measured(site, artifact, folder, point, by_turns))
        values: dict[str, Measurement] = {}
        timed: dict[str, Timed | None] = {}
        for site in self._sites:
            result, _ = answers.load(made[site.name].path)
            asked = site.asked(self._ask.asked)
            found = answers.system_measurements(result, asked, confidence)
            values |= {site.key(key): value for key, value in found.items()}
            timed[site.name] = answers.timed(result, asked, confidence, pace)
        entries = {on_device("probe", name): entry for name, entry in made.items()}
        elsewhere = {name: found for name, found in timed.items() if name and found}
        return Times(values, timed[""], elsewhere, entries)

    def beside(self, site: Site, size: int, point: DeployParams) -> tuple[Reference | None, bool]:
        """The untrained base's artifact at ``point``, to time another one of ``size`` bytes by turns with, and whether
        both may be open at once; None where there is no memory for it, or where it cannot be built."""
        try:
            entry = self._point(point)
        except StageError:
            return None, True
        info = info_of(entry.path)
        available = site.device.memory_available()
        room = "both" if available is None else room_for(size, info["size_bytes"], available)
        if room == "none":
            return None, True
        return Reference(entry.path / stages.ARTIFACT_FOLDER, info["min_generator_length"]), room == "both"

    def _measured(self, site: Site, artifact: Key, folder: Path, point: DeployParams, by_turns: bool) -> Entry:
        at, ask = self._at, self._ask
        named = keys.timed_task(latency_task(at.data, at.workload, ask, max_seconds=0),
                                self._point_key(at.pace) if by_turns else None)
        key = keys.probe("probe", artifact, [named], site.fingerprint, "screen")

        def request() -> tuple[Mapping[str, Any], int]:
            info = info_of(folder)
            task = self._task(site, info["size_bytes"], by_turns)
            asked = probe_request(folder / stages.ARTIFACT_FOLDER, site.target, info["min_generator_length"], [task])
            return asked, info["size_bytes"]

        return self._run.measurement("probe", key, request, site.titled(f"measuring {point.label}"), timed=True,
                                     device=site.device)

    def _task(self, site: Site, size: int, by_turns: bool) -> Mapping[str, Any]:
        """For an artifact of ``size`` bytes, with the reference where there is memory for it."""
        at, ask = self._at, self._ask
        reference, resident = self.beside(site, size, at.pace) if by_turns else (None, True)
        sizes = (size, size_bytes(reference.artifact)) if reference else (size,)
        return latency_task(at.data, at.workload, ask, max_seconds=screening_seconds(*sizes), reference=reference,
                            resident=resident)


def info_of(folder: Path) -> Mapping[str, Any]:
    """What the stage that made an artifact told of it."""
    found: Mapping[str, Any] = json.loads((folder / stages.INFO_FILE).read_text(encoding="utf-8"))
    return found
