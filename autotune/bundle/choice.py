"""Which trial is bundled, and what was found out about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotune.errors import AutotuneError, ConfigError, Problem
from autotune.finished import FinishedRun, FinishedTrial
from autotune.report.wording import join
from objectives.size import size_bytes


class NothingSelectedError(AutotuneError):
    """The run selected no trial: nothing met the limits."""

    exit_code = 3


@dataclass(frozen=True)
class Chosen:
    """``raw`` is the trial as results.json holds it; ``look`` is what the certificate found of it when it was measured
    again, None where it was not."""

    run: FinishedRun
    trial: FinishedTrial
    raw: Mapping[str, Any]
    look: Mapping[str, Any] | None

    @property
    def certified(self) -> bool:
        found = self.run.certificate
        return found is not None and found["verdict"] == "PASS" and found["trial"] == self.trial.number

    @property
    def values(self) -> Mapping[str, Mapping[str, Any]]:
        """Every value by key as results.json writes it: the certificate's where there are any."""
        found: Mapping[str, Mapping[str, Any]] = self.look["values"] if self.look else self.raw["values"]
        return found


def choose(run: FinishedRun, number: int | None) -> Chosen:
    """Trial ``number``, or the selected one.

    Raises:
        NothingSelectedError: none is asked for and none was selected; the message says why and what there is.
        ConfigError: no such trial, or its artifact is not on disk or not as it was measured.
    """
    if number is None and run.selected is None:
        raise NothingSelectedError(f"{run.name}: nothing is selected, as {_why_none(run)}; --trial takes {_kept(run)}")
    trial = run.trial(run.selected if number is None else number)  # type: ignore[arg-type]
    _require_artifact(run, trial)
    return Chosen(run, trial, run.record(trial.number), run.look(trial.number))


def _require_artifact(run: FinishedRun, trial: FinishedTrial) -> None:
    def problem(found: str, accepted: str) -> ConfigError:
        return ConfigError([Problem(str(run.root), f"trial {trial.number}", found, accepted)])

    if trial.state != "COMPLETE":
        raise problem(f"{trial.state}{f': {trial.reason}' if trial.reason else ''}", _kept(run))
    if not trial.on_front and trial.artifact is None:
        raise problem("its artifact was not kept, as it is not on the front", _kept(run))
    again = f"autotune run STUDY --out {run.root}, which makes it again"
    if trial.artifact is None:
        raise problem("its artifact is not on disk any more", again)
    if not trial.artifact.resolve().is_relative_to(run.root):
        raise problem(f"its artifact lies outside the run folder, in {trial.artifact}", "one inside it")
    measured = trial.values.get("size_mb")
    found = size_bytes(trial.artifact)
    if measured and found != round(measured.value * 1e6):
        raise problem(f"its artifact has {found} bytes, not the {round(measured.value * 1e6)} that were measured",
                      f"the artifact as it was; remove {trial.artifact}, then {again}")


def _kept(run: FinishedRun) -> str:
    numbers = [str(t.number) for t in run.complete if t.artifact]
    return f"a trial whose artifact is kept: {', '.join(numbers)}" if numbers else "none: no artifact is kept"


def _why_none(run: FinishedRun) -> str:
    miss, certificate = run.document["nearest_miss"], run.certificate
    if certificate and certificate.get("text"):
        return f"the certificate says: {certificate['text'][-1].rstrip('.')}"
    if not miss:
        return "nothing was measured" if not run.complete else "nothing met the limits"
    unit = f" {miss['unit']}" if miss["unit"] else ""
    nearest = f"trial {miss['trial']}" if miss["trial"] is not None else miss.get("deploy_point", "a deploy point")
    return (f"nothing met {join([c.expr for c in run.constraints])}; "
            f"{nearest} misses {miss['expr']} by {miss['shortfall']:.3g}{unit}")
