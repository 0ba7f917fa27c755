"""A comparison of runs, told the same on a terminal, in Markdown and in HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autotune.comparing.comparison import Best, Comparison, Entrant
from autotune.comparing.stretches import Stretch
from autotune.comparing.study_differences import Difference
from autotune.finished import FinishedTrial, measurement, unit_of
from autotune.report.comparison import trials_by_state
from autotune.report.difference import difference
from autotune.report.parameters import adapter_text
from autotune.report.sections import Grid, Section
from autotune.report.wording import figure, join, show, with_unit

_STATES = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAILED": "failed", "RUNNING": "running"}
_COSTS = (("wall time", "wall_s", " s"), ("adapters trained", "adapters_trained", ""),
          ("artifacts assembled", "artifacts_built", ""), ("probes", "probes", ""),
          ("stages reused", "stages_reused", ""))


def sections(found: Comparison) -> list[Section]:
    """From the answer to its grounds."""
    made = [_ground(found), *_stretches(found), _picks(found), _fronts(found), _cost(found),
            _differing("What differs in the studies", found.study, found.labels),
            _differing("What differs in machines and libraries", found.environment, found.labels)]
    if found.left_out:
        made.append(Section("Not compared", (f"{join(found.left_out)}: not an objective of every run, or not in the "
                                             "same direction.",)))
    return made


def title(found: Comparison) -> str:
    return f"Comparison of {join(found.labels)}"


def _unit(found: Comparison, key: str) -> str:
    return unit_of(key, found.entrants[0].run.units)


def _named(found: Comparison, key: str) -> str:
    unit = _unit(found, key)
    return f"{key} ({unit})" if unit else key


def _ground(found: Comparison) -> Section:
    """Hypervolume and coverage, and the reference that the one rests on."""
    ground, labels = found.covered, found.labels
    header = ("run", "limits met by", "on its front", "dominated by others", "hypervolume",
              *(f"covers of {label}" for label in labels))
    rows = []
    for i, entrant in enumerate(found.entrants):
        covers = ("" if i == j else "–" if share is None else f"{share:.0%}"
                  for j, share in enumerate(ground.coverage[i]))
        dominated = f"{len(ground.dominated[i])} of {len(entrant.front)}" if entrant.front else "–"
        rows.append((entrant.label, f"{entrant.feasible} of {len(entrant.run.complete)} trials",
                     str(len(entrant.front)), dominated, f"{ground.volumes[i]:.3f}", *covers))
    if not ground.reference:
        return Section("The fronts", ("No run has a trial that meets its limits.",), Grid(header, tuple(rows)))
    most = max(ground.volumes)
    return Section("The fronts", (_headline(found),), Grid(
        header, tuple(rows), frozenset(range(2, len(header))),
        frozenset(i for i, v in enumerate(ground.volumes) if v == most and ground.volumes.count(most) == 1)),
        (_reference(found), "Covers: the share of the other front that this one equals or dominates. All of this is "
         "by point estimates; what the intervals settle is said below."))


def _headline(found: Comparison) -> str:
    volumes = found.covered.volumes
    most = max(volumes)
    leaders = [label for label, v in zip(found.labels, volumes, strict=True) if v == most]
    if len(leaders) == len(volumes):
        return "All fronts cover the same."
    others = ", ".join(f"{label} {v:.3f}" for label, v in zip(found.labels, volumes, strict=True) if v != most)
    return (f"By hypervolume {join(leaders)} {'covers' if len(leaders) == 1 else 'cover'} most: {most:.3f}, of "
            f"{found.covered.together:.3f} that all fronts cover together; {others}.")


def _reference(found: Comparison) -> str:
    of = {"limit": "the limit of every run", "worst": "a tenth of the range beyond the worst on all fronts"}
    parts = [f"{r.key} {figure(r.value)}{with_unit(_unit(found, r.key))} ({of[r.of]})" for r in found.covered.reference]
    return ("Hypervolume: the share that a front dominates of the box between the best value of each objective on all "
            f"fronts and the reference point, which is {join(parts)}.")


def _stretches(found: Comparison) -> Iterator[Section]:
    """A section for each cost; how a lead is settled is said once."""
    notes: tuple[str, ...] = ("Bold is settled: told apart row by row on the same rows (McNemar's exact test), or by "
                              "intervals that do not meet.",)
    for cost, stretches in found.stretches.items():
        if stretches:
            rows = tuple(_stretch(found, cost, s) for s in stretches)
            bold = frozenset(i for i, s in enumerate(stretches) if s.settled and _rivals(s) > 1)
            side = "at most" if _rises(found, cost) else "at least"
            grid = Grid((f"{side} {_named(found, cost)}", "best", *found.labels), rows, frozenset(), bold)
            yield Section(f"Best {found.gain} by {cost}", (), grid, notes)
            notes = ()


def _rises(found: Comparison, cost: str) -> bool:
    return dict(found.objectives)[cost] == "minimize"


def _stretch(found: Comparison, cost: str, stretch: Stretch) -> tuple[str, ...]:
    start, end = figure(stretch.start), None if stretch.end is None else figure(stretch.end)
    open_end = f"{start} and {'more' if _rises(found, cost) else 'less'}"
    budget = open_end if end is None else f"{start} to {end}"
    leaders = join([found.labels[i] for i in stretch.leaders])
    if _rivals(stretch) == 1:
        best = f"{leaders} alone"
    elif len(stretch.leaders) > 1:
        best = f"{leaders}: equal"
    else:
        best = leaders if stretch.settled else f"{leaders}, not settled"
    return (budget, best, *(_run_along(a, b, found.gain) for a, b in zip(stretch.first, stretch.last, strict=True)))


def _rivals(stretch: Stretch) -> int:
    return sum(trial is not None for trial in stretch.first)


def _run_along(first: FinishedTrial | None, last: FinishedTrial | None, key: str) -> str:
    if first is None or last is None:
        return "–"
    if first is last:
        return f"{show(first.values[key], True)} (trial {first.number})"
    return f"{show(first.values[key])} to {show(last.values[key])} (trials {first.number} to {last.number})"


def _picks(found: Comparison) -> Section:
    header = ("policy", "run", "trial", "artifact", *(_named(found, key) for key, _ in found.objectives))
    rows = []
    for best in found.best:
        for i, entrant in enumerate(found.entrants):
            rows.append((best.policy if i == 0 else "", entrant.label, *_pick(found, best, i)))
    rows += [_certified(found, entrant) for entrant in found.entrants if entrant.run.certificate]
    return Section("The best of each run", (), Grid(header, tuple(rows), frozenset({2, *range(4, len(header))})),
                   (f"Differences are to {found.labels[0]}. Certified values are measured anew, on rows that the "
                    "search did not see.",))


def _pick(found: Comparison, best: Best, i: int) -> tuple[str, ...]:
    pick = best.picks[i]
    if pick is None:
        return ("–", "nothing meets the limits", *("" for _ in found.objectives))
    cells = []
    for key, _ in found.objectives:
        contrast = best.contrasts[i].get(key)
        cells.append(show(pick.values[key], True) + (f"\n{difference(key, contrast, '')}" if contrast else ""))
    return (str(pick.number), pick.deploy_point, *cells)


def _certified(found: Comparison, entrant: Entrant) -> tuple[str, ...]:
    """What a run's certificate found of the trial that it is for."""
    certificate = entrant.run.certificate
    assert certificate is not None
    number, verdict = certificate["trial"], certificate["verdict"]
    if number is None:
        return (f"certificate: {verdict}", entrant.label, "–", "no finalist holds the limits", *("" for _ in
                                                                                               found.objectives))
    values = (entrant.run.look(number) or {}).get("values", {})
    cells = (show(measurement(values[key]), True) if key in values else "" for key, _ in found.objectives)
    return (f"certificate: {verdict}", entrant.label, str(number), entrant.run.trial(number).deploy_point, *cells)


def _fronts(found: Comparison) -> Section:
    header = ("run", "trial", "artifact", "adapter", *(_named(found, key) for key, _ in found.objectives))
    rows = []
    for entrant, dominated in zip(found.entrants, found.covered.dominated, strict=True):
        for trial in entrant.front:
            label = trial.deploy_point + ("\ndominated by another run" if trial.number in dominated else "")
            rows.append((entrant.label, str(trial.number), label, adapter_text(trial.params),
                         *(show(trial.values[key], True) for key, _ in found.objectives)))
    return Section("Every trial on a front", (), Grid(header, tuple(rows), frozenset({1, *range(4, len(header))})))


def _cost(found: Comparison) -> Section:
    def trials(entrant: Entrant) -> str:
        return ", ".join(f"{n} {_STATES[state]}" for state, n in trials_by_state(entrant).items()) or "none"

    rows = [("trials", *(trials(e) for e in found.entrants))]
    rows += [(name, *(_amount(e.run.document["cost"].get(key), unit) for e in found.entrants))
             for name, key, unit in _COSTS]
    return Section("What it took", (), Grid(("", *found.labels), tuple(rows), frozenset(range(1, len(rows[0])))))


def _amount(value: float | None, unit: str) -> str:
    return "not known" if value is None else f"{value:.0f}{unit}"


def _differing(title: str, found: Sequence[Difference], labels: Sequence[str]) -> Section:
    if not found:
        return Section(title, ("Nothing.",))
    return Section(title, (), Grid(("", *labels), tuple((d.where, *d.values) for d in found)))
