"""What a study will take: before it begins, and for ``--dry-run``."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from typing import Any

import psutil

from autotune.certifying.evidence import requests_needed
from autotune.certifying.examine import Tier
from autotune.config import StudyConfig
from autotune.errors import StudyError
from autotune.estimate import Certifying, Estimate, artifact_bytes, estimate
from autotune.machine_lock import MachineLock
from autotune.options import Options, open_store
from autotune.pipeline import base_model, stages
from autotune.preparation import Prepared, prepare
from autotune.report.terminal import Terminal
from autotune.run_folder import RunFolder
from autotune.search import schedule
from autotune.search.costs import certificate_seconds
from autotune.search.scoring import Scorer
from autotune.storage import run_registry
from autotune.storage.stage_runner import StageRunner
from autotune.study_file import parse_duration
from autotune.targets.several import hosts, in_sequence
from autotune.workers import Worker
from objectives.base import is_answers
from search_spaces.space import Choice, Dimension


def plan_study(config: StudyConfig, options: Options) -> tuple[Estimate, list[dict[str, Any]]]:
    """For ``--dry-run``: what would be done, without training. The base model and data are prepared.

    The second value is one mapping per deploy point: label, size in MB or the reason it is left out.
    """
    terminal = Terminal(options.quiet)
    source = base_model.resolve(config.file.model, config.base_dir)
    scratch = options.store / ".dry-run" / str(os.getpid())
    try:
        with RunFolder(scratch, config.sha256(), {}) as folder:
            worker = Worker(folder.log)
            store = open_store(options, terminal.warn)
            run_registry.register(store.root, folder.root)
            runner = StageRunner(store, worker, folder, terminal, MachineLock(on_wait=terminal.say))
            try:
                prepared = prepare(config, source, runner, Terminal(quiet=True))
                gflops = runner.call("measuring this machine", stages.matmul_gflops)
            finally:
                worker.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        run_registry.unregister(options.store, scratch.resolve())
    return _estimate(config, options, prepared, gflops), _points(prepared)


def _points(prepared: Prepared) -> list[dict[str, Any]]:
    kept = [{"label": p.label, "size_mb": round(artifact_bytes(prepared.facts, p) / 1e6), "reason": None}
            for p in prepared.points]
    return kept + [{"label": p.label, "size_mb": None, "reason": reason} for p, reason in prepared.dropped]


def require_room(
    config: StudyConfig, options: Options, prepared: Prepared, scorer: Scorer, terminal: Terminal
) -> None:
    """Before any work: raises StudyError where the disk is too small for what is still to be made.

    Too little memory is only said: how much a stage needs is less sure, and some of it can be swapped.
    """
    have_template, have_points = scorer.held()
    found = _estimate(config, options, prepared, gflops=1.0, have_template=have_template, have_points=have_points)
    short = [sentence for sentence in found.misfits if sentence.startswith("disk")]
    if short:
        raise StudyError("; ".join(short))
    for sentence in found.misfits:
        terminal.warn(sentence)


def _estimate(
    config: StudyConfig, options: Options, prepared: Prepared, gflops: float, *, have_template: bool = False,
    have_points: int = 0,
) -> Estimate:
    budget = budget_of(config, options)
    space = config.space.adapter
    work = prepared.workload
    trials = budget.trials
    adapters = budget.adapters or (-(-trials // len(prepared.points)) if trials else 8)
    if trials:
        adapters = min(adapters, -(-trials // len(prepared.points)))
    steps = _typical(space.get("steps"))
    return estimate(
        prepared.facts, prepared.data, prepared.points, adapters=adapters, trials=trials,
        epochs=_typical(space.get("epochs")) or 2.0, steps=int(steps) if steps else None,
        batch_size=int(_typical(space.get("batch_size")) or 8), gflops=gflops,
        prompt_tokens=work.prompt_tokens or 0, new_tokens=work.new_tokens or 1, samples=work.samples,
        free_disk=shutil.disk_usage(options.store).free, free_memory=psutil.virtual_memory().available,
        have_template=have_template, have_points=have_points, certifying=_certifying(config),
        time_s=math.inf if budget.time_s is None else budget.time_s, devices_in_sequence=_devices_in_sequence(config),
    )


def _devices_in_sequence(config: StudyConfig) -> float:
    """How many times as long as on the target alone what is done on every device takes, all of them as fast."""
    return in_sequence((host, 1.0) for host in hosts(config.file).values())


def _certifying(config: StudyConfig) -> Certifying | None:
    if not config.file.certificate.finalists:
        return None
    tier = tier_of(config)
    return Certifying(requests_needed(list(config.measured()), config.file.confidence), tier.max_seconds,
                      tier.sustain_seconds)


def certifying_cost(config: StudyConfig, prepared: Prepared) -> Callable[[float, float], float]:
    """What certifying an artifact takes, of its latency in ms and the seconds of a row's answer."""
    asked = _certifying(config)
    if asked is None:
        return lambda latency_ms, row_s: 0.0
    # Limits that are relative to the baseline's answers have it answer the same rows.
    baseline = any(c.relative and is_answers(c.objective) for c in config.constraints)
    rows = len(prepared.data.test) * (1 + baseline)
    return lambda latency_ms, row_s: certificate_seconds(
        asked.requests, asked.max_seconds, asked.sustain_seconds, latency_ms, row_s, rows)


def _typical(dimension: Dimension | None) -> float | None:
    """The middle of a dimension, for estimates."""
    if dimension is None:
        return None
    if isinstance(dimension, Choice):
        numbers = sorted(float(v) for v in dimension.values if not isinstance(v, str))
        return numbers[len(numbers) // 2]
    return (dimension.low * dimension.high) ** 0.5 if dimension.log else (dimension.low + dimension.high) / 2


def budget_of(config: StudyConfig, options: Options, seconds_before: float = 0.0) -> schedule.Budget:
    """The command line's limits win; a study without any stops after eight adapters.

    ``--timeout`` is for this process, the study's own time for all of them together.
    """
    given = config.file.budget
    trials = options.trials or given.trials
    time_s = seconds_before + options.time_s if options.time_s else config.time_s
    adapters = given.adapters
    if adapters is None and trials is None and time_s is None:
        adapters = 8
    return schedule.Budget(adapters, trials, time_s)


def tier_of(config: StudyConfig) -> Tier:
    asked = config.file.certificate
    return Tier(parse_duration(asked.time), parse_duration(asked.sustain) if asked.sustain else 0.0)
