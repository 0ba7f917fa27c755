"""report.html: one run in one file that opens anywhere, made of its run folder alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from autotune.comparing.study_differences import flat
from autotune.errors import ConfigError, Problem
from autotune.finished import FinishedRun, measurement
from autotune.report import gauges
from autotune.report.adapter_table import adapter_table
from autotune.report.axes import axes
from autotune.report.cost import cost_sentence
from autotune.report.device_table import side_by_side
from autotune.report.gauges import Gauge
from autotune.report.importance import importances
from autotune.report.page import figure_html, render
from autotune.report.parallel_plot import parallel_figure
from autotune.report.parameters import adapter_text
from autotune.report.pareto_plot import pareto_figure
from autotune.report.time_spent import time_spent
from autotune.report.trial_table import trial_table
from autotune.report.verdict import Answer, answer
from autotune.report.wording import percent
from autotune.stats import Measurement
from autotune.storage.manifest import write_atomically
from objectives.base import split_device

REPORT = "report.html"


@dataclass(frozen=True)
class Subject:
    """What the top of the page is about: the chosen trial, or what came nearest. ``source`` says of what its numbers
    are."""

    title: str
    adapter: str
    artifact: str
    source: str
    gauges: Sequence[Gauge]


@dataclass(frozen=True)
class Look:
    """One finalist of the certificate; ``values`` are all that were measured anew, by key."""

    title: str
    verdict: str
    confidence: float
    problem: str
    gauges: Sequence[Gauge]
    values: Mapping[str, Measurement]
    timing: str
    logits: str


@dataclass(frozen=True)
class Point:
    """A deploy point on base weights. ``state`` and ``sentence`` are of its timing, empty where none was taken;
    ``ratios`` are to ``reference``; ``dropped`` says why it was left out."""

    label: str
    values: Mapping[str, Measurement]
    state: str
    sentence: str
    reference: str
    ratios: Mapping[str, Measurement]
    dropped: str


def write_report(run: FinishedRun, out: Path | None = None) -> Path:
    """Write the report, into the run's folder unless ``out`` names a file; returns where it is.

    Raises:
        ConfigError: the file cannot be written.
    """
    path = out or run.root / REPORT
    try:
        write_atomically(path, report_html(run))
    except OSError as error:
        raise ConfigError([Problem(str(path), "", error.strerror or str(error), "a file that can be written")]
                          ) from None
    return path


def report_html(run: FinishedRun) -> str:
    """The page."""
    found = answer(run)
    columns, rows = trial_table(run, found.trial)
    certificate = run.document.get("certificate")
    events = run.events()
    points = _points(run)
    return render(
        "report.html.j2", run=run, answer=found, subject=_subject(run, found),
        axes=axes(run, found.trial), pareto=_pareto(run, found.trial), parallel=_parallel(run, found.trial),
        importances=importances(run), spent=time_spent(run.document["cost"], events),
        cost=cost_sentence(run.document["cost"]), columns=columns, rows=rows, certificate=certificate,
        adapters=adapter_table(run), looks=[_look(run, look) for look in certificate["looks"]] if certificate else [],
        points=points, point_keys=_point_keys(run, points), confidence=_confidence(run),
        environment=list(flat(run.document["environment"]).items()), study=_study(run)[1], baseline=_baseline(run),
        subtitle=_subtitle(run), devices=side_by_side(run), repeats=run.document.get("repeats", ()),
    )


def _subject(run: FinishedRun, found: Answer) -> Subject | None:
    """None where nothing was measured at all."""
    if found.trial is None:
        miss = run.document["nearest_miss"] or {}
        nearest = [d for d in run.document.get("dropped", ()) if d["label"] == miss.get("deploy_point")]
        return Subject(f"nearest: {nearest[0]['label']}", "", "", "on the base model, before any training",
                       gauges.of_point(run, nearest[0])) if nearest else None
    trial = run.trial(found.trial)
    title = f"trial {trial.number} · {trial.deploy_point}"
    artifact = str(trial.artifact.relative_to(run.root)) if trial.artifact and run.selected is not None else ""
    look = next((k for k in (run.document.get("certificate") or {}).get("looks", ())
                 if k["trial"] == trial.number and k["constraints"]), None)
    if look is None:
        return Subject(title, adapter_text(trial.params), artifact,
                       f"by the search, on rows that it chose by; {percent(_confidence(run))} intervals",
                       gauges.of_trial(run, trial))
    return Subject(title, adapter_text(trial.params), artifact,
                   f"anew, on rows that the search never saw; {percent(look['confidence'])} intervals",
                   gauges.of_look(run, look))


def _confidence(run: FinishedRun) -> float:
    """Of the search's intervals."""
    return float(_study(run)[0].get("confidence", 0.95))


def _pareto(run: FinishedRun, chosen: int | None) -> Markup | str:
    figure = pareto_figure(run, chosen)
    return figure_html(figure, "pareto", "Trials by two measured quantities; the table of trials has the same numbers"
                       ) if figure else ""


def _parallel(run: FinishedRun, chosen: int | None) -> Markup | str:
    figure = parallel_figure(run, chosen)
    if figure is None:
        return ""
    place = figure_html(figure, "parallel", "Each trial's parameters and objectives; the table of trials has the same")
    return Markup('<div style="min-width: {}px">{}</div>').format(figure.layout.meta["least_width"], place)


def _look(run: FinishedRun, look: Mapping[str, Any]) -> Look:
    trial = run.trial(look["trial"])
    logits, timing = look["logits"], look["timing"]
    return Look(
        title=f"trial {trial.number} · {trial.deploy_point}", verdict=look["verdict"], confidence=look["confidence"],
        problem=look["problem"] or "", gauges=gauges.of_look(run, look), values=run.measured(look["values"]),
        timing=timing.get("sentence", ""),
        logits=(f"largest difference {logits['relative']:.1e} of the largest logit, same top token on "
                f"{logits['top1_agree']} of {logits['n']} prompts") if "relative" in logits else "",
    )


def _points(run: FinishedRun) -> list[Point]:
    found = [*run.document.get("deploy_points", ()), *run.document.get("dropped", ())]
    points = []
    for point in found:
        timing = point.get("timing") or {}
        points.append(Point(
            point["label"], run.measured(point.get("values", {})), timing.get("state", ""),
            timing.get("sentence", ""), timing.get("reference") or "",
            {key: measurement(m) for key, m in timing.get("ratios", {}).items()}, point.get("reason", "")))
    return points


def _point_keys(run: FinishedRun, points: Sequence[Point]) -> list[str]:
    """What was measured of a deploy point: objectives and limits first, then the other medians and single readings."""
    have = list(dict.fromkeys(key for p in points for key in p.values))
    return [key for key in run.asked if key in have] + [
        key for key in have if key not in run.asked and split_device(key)[0].partition(".")[2] in ("", "p50")
        and not split_device(key)[1]]


def _baseline(run: FinishedRun) -> tuple[str, Mapping[str, Measurement]] | None:
    found = run.document.get("baseline")
    return (found["deploy_point"], run.measured(found["values"])) if found else None


def _subtitle(run: FinishedRun) -> str:
    study = _study(run)[0]
    environment = run.document["environment"]
    measured_on = environment.get("device", environment)
    told = [run.name, study.get("model"), (study.get("target") or {}).get("provider"),
            measured_on.get("board") or measured_on.get("cpu")]
    return " · ".join(str(part) for part in told if part)


def _study(run: FinishedRun) -> tuple[Mapping[str, Any], str]:
    """study.yaml as it was resolved and as it is written; empty where the folder has lost it."""
    try:
        return run.study, (run.root / "study.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError, ConfigError):
        return {}, ""
