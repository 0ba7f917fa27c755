"""What work is expected to cost: by a model, to weigh one piece against another; by this run's own clock, to keep a
time budget. Pure.

The model rests on what was measured before any training, which the store keeps. So a search without a time budget does
not depend on how fast the machine was meanwhile: run again, or killed and resumed, it tries the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from autotune.estimate import assembly_seconds
from autotune.search.rungs import AdapterState, Costs, step_seconds
from autotune.trials import TrialRecord
from objectives.base import split_device
from search_spaces.deploy import DeployParams

#: Of a trial's stages those that it is made of itself; the others are measured once a deploy point.
_OWN_STAGES = ("assemble", "answers", "probe")


#: A training step is a forward and a backward pass, of which the frozen weights need half.
_STEP_IN_FORWARDS = 3.0
#: Seconds to start what answers.
_START_S = 3.0
#: Seconds a token where nothing was timed before training, as requests are the rows' own.
_TOKEN_S = 0.002


def modelled_costs(
    times: Mapping[DeployParams, float], *, prompt_tokens: int, row_tokens: float, answer_tokens: float, rows: int,
    asked: int, batch_size: float, steps: float, changed: float,
) -> Costs:
    """``times``: seconds to the first token of ``prompt_tokens``, by deploy point, those of none 0. ``row_tokens`` and
    ``answer_tokens`` are means, ``rows`` the validation rows, ``asked`` the answers of judging an adapter once,
    ``changed`` the weights of the layers."""
    token_s = {p: s / prompt_tokens if s and prompt_tokens else _TOKEN_S for p, s in times.items()}
    slowest = max(token_s.values())
    judge = asked * (row_tokens + answer_tokens) * slowest
    return Costs(
        step=_STEP_IN_FORWARDS * batch_size * (row_tokens + answer_tokens) * slowest, steps=steps, judge=judge,
        score={p.label: _START_S + rows * row_tokens * token_s[p] + assembly_seconds(p, changed) for p in times},
    )


def learned_costs(
    adapters: Sequence[AdapterState], records: Iterable[TrialRecord], width: int, reserve: float
) -> Costs:
    """From what each kind of work took in this run; nothing where nothing was made yet.

    What the store had already took no time, and says nothing of what will be made.
    """
    step = step_seconds(a.rungs for a in adapters)
    judged = [r.judge_s for a in adapters for r in a.rungs if r.judge_s > 0]
    scored: dict[str, list[float]] = {}
    shortened: dict[str, list[float]] = {}  # trials that were stopped before their last row
    for record in records:
        own = [stage for name, stage in record.stages.items()
               if split_device(name)[0] in _OWN_STAGES and not _shared(record, name)]
        seconds = sum(stage["seconds"] for stage in own if not stage["cached"])
        if seconds > 0:
            found = shortened if record.state == "PRUNED" else scored
            found.setdefault(record.deploy.label, []).append(seconds)
    return Costs(
        step=width * step if step is not None else None,
        steps=statistics.median(a.steps for a in adapters) if adapters else None,
        judge=statistics.fmean(judged) if judged else None,
        score={label: statistics.fmean(seconds) for label, seconds in {**shortened, **scored}.items()},
        reserve=reserve,
    )


def certificate_seconds(
    requests: int, most: float, sustain: float, latency_ms: float, row_s: float, rows: int, fixed_s: float = 25.0
) -> float:
    """What certifying one finalist takes: its requests by turns with the reference's, at most ``most`` seconds; load
    before them; ``rows`` test rows at ``row_s`` each; ``fixed_s`` for starting, loading and comparing logits."""
    return min(2.0 * requests * latency_ms / 1e3, most) + sustain + rows * row_s + fixed_s


def row_seconds(records: Iterable[TrialRecord], rows: int) -> float | None:
    """Seconds that an artifact of this run takes to answer one of the validation ``rows``; None before any did."""
    asked = [r.stages["answers"]["seconds"] / rows for r in records
             if r.state == "COMPLETE" and "answers" in r.stages and not r.stages["answers"]["cached"]]
    return statistics.fmean(asked) if asked else None


def _shared(record: TrialRecord, stage: str) -> bool:
    """Whether a stage is the deploy point's, which the trial lists without having made it."""
    return bool(record.on_base) and split_device(stage)[0] == "probe"
