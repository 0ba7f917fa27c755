"""A choice made anew, as a colleague would tell it."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.choosing.selection import Choice, Other, Relaxed, Selection, Shortfall
from autotune.finished import FinishedRun, FinishedTrial, measurement, unit_of
from autotune.pareto import Direction
from autotune.report.difference import amount, difference
from autotune.report.parameters import adapter_text
from autotune.report.sections import Grid, Section
from autotune.report.wording import figure, join, missed_by, show, with_unit


def sections(run: FinishedRun, found: Selection, replaced: bool, written: str | None = None) -> list[Section]:
    """``replaced``: the limits are not just the study's own. ``written``: the file of the study of this trial alone."""
    title = f"{run.name}: {run.root}"
    opening = Section(title, (_limits_line(run, found, replaced),))
    if found.shortfall:
        return [opening, *_missed(run, found.shortfall), *_unknown(found)]
    assert found.choice is not None
    choice = found.choice
    held = [_held(choice)] if choice.held else []
    return [opening, _chosen(run, found, choice), *held, _others(run, choice), *_unknown(found),
            _proof(run, found, choice.trial), _artifact(run, choice.trial, written)]


def name(trial: FinishedTrial) -> str:
    return f"trial {trial.number} ({trial.deploy_point})"


def _limits_line(run: FinishedRun, found: Selection, replaced: bool) -> str:
    count = f"{found.feasible} of {len(run.complete)} complete trials"
    if not found.constraints:
        return f"{count} fit, as there are no limits."
    fit = "meets" if found.feasible == 1 else "meet"
    limits = f"{count} {fit} {join([_limit(c.expr, c.baseline) for c in found.constraints])}"
    if not replaced:
        return f"{limits}: the study's own limits."
    gone = [c.expr for c in run.constraints if c.expr not in {asked.expr for asked in found.constraints}]
    return f"{limits}{f', in place of {join(gone)}, which the study asked' if gone else ''}."


def _limit(expr: str, baseline: float | None) -> str:
    return expr if baseline is None else f"{expr} (baseline {figure(baseline)})"


def _chosen(run: FinishedRun, found: Selection, choice: Choice) -> Section:
    trial, others = choice.trial, len(choice.front) - 1
    among = f"{found.policy} of {others + 1} on the front" if others else "alone on the front"
    lines = [f"Chosen: {name(trial)}, {among}", adapter_text(trial.params)]
    if cheaper := [o.trial.number for o in choice.others if o.tied and o.cheaper]:
        lines.append(f"Its answers are not proven better than those of {_trials(cheaper)}, which "
                     f"{'is' if len(cheaper) == 1 else 'are'} cheaper.")
    return Section(lines[0], tuple(lines[1:]))


def _held(choice: Choice) -> Section:
    rows = tuple((h.constraint.expr, f"{show(h.value, True)}{with_unit(h.value.unit)}", str(h.value.n), h.verdict)
                 for h in choice.held)
    verdicts = {h.verdict for h in choice.held}
    notes = ("The point estimates chose; a verdict is that of the interval.",) if verdicts - {"PASS"} else ()
    return Section("Its limits", (), Grid(("limit", "measured", "n", "verdict"), rows, frozenset({1, 2})), notes)


def _others(run: FinishedRun, choice: Choice) -> Section:
    header = ("trial", "artifact", *(f"{key}{_in(unit_of(key, run.units))}" for key, _ in run.objectives))
    first = (str(choice.trial.number), choice.trial.deploy_point,
             *(show(choice.trial.values[key], True) for key, _ in run.objectives))
    rows = [first]
    for other in choice.others:
        label = other.trial.deploy_point + ("\ntied" if other.tied else "")
        values = (f"{show(other.trial.values[key], True)}\n{difference(key, other.contrasts[key], '')}"
                  for key, _ in run.objectives)
        rows.append((str(other.trial.number), label, *values))
    grid = Grid(header, tuple(rows), frozenset(range(2, len(header))), frozenset({0}))
    notes = (_next_best(run, choice, choice.others[0]),) if choice.others else ("No other trial fits.",)
    return Section("The front" if len(choice.front) > 1 else "The front and the next best", (), grid, notes)


def _in(unit: str) -> str:
    return f" ({unit})" if unit else ""


def _next_best(run: FinishedRun, choice: Choice, other: Other) -> str:
    gains, losses = _sides(other, run.objectives)
    units = {key: unit_of(key, run.units) for key, _ in run.objectives}

    def said(keys: Sequence[str]) -> str:
        return join([amount(key, other.contrasts[key], units[key]) for key in keys])

    parts = ([f"gains {said(gains)}"] if gains else []) + ([f"gives up {said(losses)}"] if losses else [])
    where = "" if other.trial.number in choice.front else ", off the front,"
    return f"Next best: {name(other.trial)}{where} {' and '.join(parts) or 'is the same in every objective'}."


def _sides(other: Other, objectives: Sequence[tuple[str, Direction]]) -> tuple[list[str], list[str]]:
    """Objectives in which the other trial is better, and in which it is worse."""
    better = {key: other.contrasts[key].difference * (1 if d == "maximize" else -1) for key, d in objectives}
    return [k for k, v in better.items() if v > 0], [k for k, v in better.items() if v < 0]


def _missed(run: FinishedRun, shortfall: Shortfall) -> list[Section]:
    miss, nearest = shortfall.miss, run.trial(shortfall.miss.trial)
    short = missed_by(miss, unit_of(miss.objective, run.units))
    line = f"Nothing meets the limits. Nearest: {name(nearest)}, which {short}."
    found = [Section(line, (f"It fits where {join([r.expr for r in shortfall.missed])}.",))]
    if shortfall.single:
        rows = tuple((r.constraint.expr, r.expr, str(r.trial), run.trial(r.trial).deploy_point, _value(r))
                     for r in shortfall.single)
        found.append(Section("Any of these is enough, with the other limits as they are", (), Grid(
            ("in place of", "ask for", "trial", "artifact", "measured"), rows, frozenset({2, 4}))))
    else:
        found.append(Section("", ("No single limit is to blame: with any one of them relaxed still nothing fits.",)))
    return found


def _value(relaxed: Relaxed) -> str:
    return f"{show(relaxed.value, True)}{with_unit(relaxed.value.unit)}"


def _unknown(found: Selection) -> list[Section]:
    """What the search never came to know, as it had other limits."""
    lines = []
    if stopped := found.unknown.stopped:
        lines.append(f"The search stopped {_trials(stopped)} early, as nothing could come of {_them(stopped)} under "
                     f"the study's own limits. Under these {_them(stopped, 'it', 'they')} might fit.")
    if adapters := found.unknown.adapters:
        named = f"adapter{'s' * (len(adapters) > 1)} {join([str(n) for n in adapters])}"
        lines.append(f"The search trained {named} in part or did not score all artifacts, as nothing "
                     "could come of that under the study's own limits.")
    if dropped := found.unknown.dropped:
        lines.append(f"The search dropped {join(dropped)} before training, for the study's own limits. These let "
                     f"{_them(dropped)} in: a run of the study with them tries {_them(dropped)}.")
    return [Section("Not known", tuple(lines))] if lines else []


def _them(found: Sequence[object], one: str = "it", many: str = "them") -> str:
    return one if len(found) == 1 else many


def _trials(numbers: Sequence[int]) -> str:
    return f"trial{'s' * (len(numbers) > 1)} {join([str(n) for n in numbers])}"


def _proof(run: FinishedRun, found: Selection, trial: FinishedTrial) -> Section:
    """The certificate's figures of this trial, or that there are none."""
    look = run.look(trial.number)
    if look is None:
        return Section("No certificate", ("These are the search's figures, of rows that it chose by. On rows that it "
                                          "has not seen such a winner tends to be worse, as it is partly lucky.",))
    title = f"Measured again for the certificate, with {look['confidence']:.4g} confidence"
    line = "The figures above are of rows that the search chose by; these are of rows that it had not seen."
    keys = dict.fromkeys([*(key for key, _ in run.objectives), *(c.objective for c in found.constraints)])
    rows = []
    for key in keys:
        if key in look["values"]:
            value = measurement(look["values"][key], unit_of(key, run.units))
            rows.append((key, f"{show(value, True)}{with_unit(value.unit)}", str(value.n)))
    told = join([f"{c['expr']} {c['verdict']}" for c in look["constraints"]]) if look["constraints"] else "none"
    asked = {(c.expr, c.bound) for c in found.constraints}
    new = bool(asked - {(c["expr"], c["bound"]) for c in look["constraints"]})
    notes = (f"It judged the study's limits: {told}.", *(
        ("No certificate was made for the limits asked for here.",) if new else ()))
    return Section(title, (line,), Grid(("", "measured", "n"), tuple(rows), frozenset({1, 2})), notes)


def _artifact(run: FinishedRun, trial: FinishedTrial, written: str | None) -> Section:
    lines = [str(trial.artifact)] if trial.artifact else []
    if not lines:
        kept = [t.number for t in run.trials if t.artifact]
        there = f"the run keeps those of its own front, and {_trials(kept)} {_them(kept, 'is', 'are')} there" if kept \
            else "the run's are gone"
        lines.append(f"Not on disk: {there}." + ("" if written else " To make it, give --study FILE."))
        before = "" if written else "That writes a study of this trial alone: "
        lines.append(f"{before}`autotune run {written or 'FILE'}` assembles and certifies it. What the store still "
                     "holds is not trained again.")
    if written:
        lines += [f"Study of this trial alone: {written}",
                  "Relative paths in it count from its folder, so keep it beside the study that the run is of."]
    return Section("Artifact", tuple(lines))
