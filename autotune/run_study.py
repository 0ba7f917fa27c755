"""One ``autotune run``: everything opened, prepared, searched, judged and written down."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from autotune import deployment
from autotune.certifying.certify import Certifier
from autotune.certifying.everywhere import EveryDevice
from autotune.certifying.examine import Examiner
from autotune.config import StudyConfig
from autotune.errors import ConfigError, StageError, StudyError
from autotune.finished import read_run
from autotune.machine_lock import MachineLock
from autotune.options import Options, open_store
from autotune.pipeline import base_model
from autotune.planned_work import budget_of, certifying_cost, require_room, tier_of
from autotune.preparation import Prepared, prepare
from autotune.questions import Questions
from autotune.report import results as report
from autotune.report.adapters import adapters_json
from autotune.report.cost import account, cost_sentence
from autotune.report.report_html import write_report
from autotune.report.terminal import Terminal, dropped_sentence, verdict_sentence
from autotune.report.told import exit_code
from autotune.report.wording import show
from autotune.run_folder import RunFolder, environment
from autotune.search import schedule
from autotune.search.baseline import Baseline
from autotune.search.database import answering, database_of, opening
from autotune.search.limits import Limits
from autotune.search.optuna_study import reach
from autotune.search.repeats import Repeated
from autotune.search.scoring import Scorer
from autotune.search.screening import screen
from autotune.search.study import StudyLoop
from autotune.search.trainer import training_width
from autotune.storage import run_registry
from autotune.storage.keys import digest
from autotune.storage.stage_runner import StageRunner
from autotune.storage.store import Store
from autotune.targets.address import LOCAL
from autotune.targets.opening import open_device
from autotune.targets.several import about as about_devices
from autotune.targets.several import hosts, open_sites
from autotune.trials import Screening
from autotune.workers import Kind, Worker, Workers
from objectives.base import OBJECTIVES

if TYPE_CHECKING:
    from autotune.ray_workers import DriversLock


@dataclass(frozen=True)
class Finished:
    """What a run came to; ``document`` is results.json."""

    exit_code: int
    document: Mapping[str, Any]


def run_study(config: StudyConfig, options: Options) -> Finished:
    """Search, or go on with a search. Raises AutotuneError; KeyboardInterrupt leaves a resumable folder."""
    terminal, started = Terminal(options.quiet, options.silent), time.monotonic()
    source = base_model.resolve(config.file.model, config.base_dir)
    resolved = config.file.model_dump(mode="json", by_alias=True, exclude_none=True)
    with RunFolder(options.out, config.sha256(), resolved) as folder:
        seconds_before = account(folder.events()[:-1]).wall_s  # less this process's own start
        store = open_store(options, terminal.warn)
        run_registry.register(store.root, folder.root)
        database = database_of(folder, config.file.storage, config.file.name)
        with opening(database):  # said before any work
            reach(database.url)
        worker, lock = _workers(config, folder, store, terminal)
        try:
            target = config.file.target
            device = open_device(target.host, target.python, target.provider, terminal.say, terminal.warn, worker)
            sites = open_sites(config.file.devices or {}, terminal.say, terminal.warn, worker)
            runner = StageRunner(store, worker, folder, terminal, lock, device, [site.device for site in sites])
            prepared = prepare(config, source, runner, terminal)
            remote = {"device": device, **{f"devices.{site.name}": site.device for site in sites}}
            folder.require_same_inputs({
                "base": str(prepared.base.key), "data": str(prepared.data_entry.key),
                **{name: digest(each.fingerprint) for name, each in remote.items() if each.is_remote}})
            questions = Questions(config.file.data.max_new_tokens, config.file.data.stop, tuple(config.measured()),
                                  config.file.confidence, config.base_dir, config.file.early_stop_error)
            scorer = Scorer(prepared, questions, runner, folder, device.fingerprint, sites)
            require_room(config, options, prepared, scorer, terminal)
            limits = _limits(config, prepared)
            try:
                if limits.need_base:
                    limits.learn_base({k: m.value for k, m in scorer.screen(prepared.reference).values.items()})
                screening = screen(prepared.points, limits.now(), scorer, terminal.warn)
            except StageError as error:
                raise StudyError(f"no deploy point could be measured ({error.stage}): {error.reason}") from error
            about = {**environment(), **({"device": device.about} if device.about else {}),
                     **({"devices": about_devices(sites)} if sites else {})}
            context = report.Context(config.file.name, config.sha256(), about, config.objectives,
                                     config.measured(), limits.shown(), prepared.dropped, screening,
                                     deployment.as_json(config, prepared))
            if not screening.kept:
                return _nothing_can_fit(context, screening, folder, terminal)
            loop = StudyLoop(config, prepared, screening.kept, runner, scorer, folder, terminal,
                             budget_of(config, options, seconds_before), limits, started - seconds_before,
                             training_width(), certifying_cost(config, prepared), database)
            examiner = EveryDevice([
                Examiner(prepared, questions, runner, scorer, folder, limits, tier_of(config), loop.adapter, site)
                for site in scorer.sites])
            certifier = Certifier(config, examiner, limits, folder, terminal)
            with answering(database):
                if options.warm_start is not None:
                    loop.warm_start(options.warm_start)
                return _search(config, context, loop, certifier, folder, terminal)
        finally:
            worker.close()


def _workers(
    config: StudyConfig, folder: RunFolder, store: Store, terminal: Terminal
) -> tuple[Workers, MachineLock | DriversLock]:
    """Who runs the stages, and the lock that this process holds while they do."""
    lock, ray = MachineLock(on_wait=terminal.say), config.file.workers.ray
    if ray is None:
        return Worker(folder.log), lock
    from autotune.ray_workers import DriversLock, RayWorker

    own = DriversLock(lock)
    places = [store.root, folder.root, config.base_dir]
    asked = ray.resources
    needs: dict[Kind, Mapping[str, float]] = {
        "build": asked.build, "train": asked.train, "answers": asked.answers, "probe": asked.probe}
    return RayWorker(folder.log, own, places, address=ray.address, count=ray.count, resources=needs,
                     measures=LOCAL in hosts(config.file).values()), own


def _limits(config: StudyConfig, prepared: Prepared) -> Limits:
    key = schedule.adapter_objectives(
        config.objectives, config.measured(), prepared.workload.from_rows, prepared.data.task)[0]
    known = {**OBJECTIVES, **config.measured()}
    return Limits(config.constraints, config.file.baseline, key, known[key].direction, prepared.workload.from_rows)


def _nothing_can_fit(
    context: report.Context, screening: Screening, folder: RunFolder, terminal: Terminal
) -> Finished:
    """Every deploy point fails a limit on base weights: no training could help."""
    document = report.results(context, (), None, {}, None, account(folder.events()).as_json())
    report.write(folder.root, document)
    units = {key: objective.unit for key, objective in context.measured.items()}
    terminal.say(dropped_sentence(screening, units))
    terminal.say(cost_sentence(document["cost"]))
    _report(folder, terminal)
    terminal.say(f"Run folder: {folder.root}")
    return Finished(exit_code(document), document)


def _search(
    config: StudyConfig, context: report.Context, loop: StudyLoop, certifier: Certifier, folder: RunFolder,
    terminal: Terminal,
) -> Finished:
    baseline = loop.baseline()
    _say_baseline(terminal, baseline)

    def write(
        kept: Mapping[int, str], certificate: Mapping[str, Any] | None = None, repeats: Sequence[Repeated] = ()
    ) -> dict[str, Any]:
        document = report.results(
            replace(context, constraints=loop.limits()), loop.records(), loop.outcome(), kept, _baseline_json(baseline),
            account(folder.events()).as_json(), loop.ties(), certificate, [r.as_json() for r in repeats],
            adapters_json(loop.adapters(), loop.records()))
        report.write(folder.root, document)
        loop.annotate(document)
        return document

    end = loop.search(lambda: write(loop.kept()))
    kept = loop.keep_front()
    write(kept)  # a kill in the certificate must not cost the search's results
    outcome, records = loop.outcome(), loop.records()
    terminal.say("")
    terminal.front(records, config.objectives, outcome, loop.ties())
    units = {key: objective.unit for key, objective in config.measured().items()}
    terminal.say(f"The search ended because {end.reason}.")
    final = not config.file.certificate.finalists
    terminal.say(verdict_sentence(records, config.objectives, loop.limits(), outcome, units, final))
    if repeats := loop.repeats():
        write(kept, repeats=repeats)
    certificate = certifier.certify(records, outcome, loop.spare_s() if end.out_of_time else 0.0)
    document = write(kept, certificate, repeats)
    loop.keep_copy()
    terminal.say(cost_sentence(document["cost"]))
    if document["selected"] is not None:
        terminal.say(f"Artifact: {folder.artifacts / kept[document['selected']['trial']]}")
    _report(folder, terminal)
    terminal.say(f"Run folder: {folder.root}")
    return Finished(exit_code(document), document)


def _report(folder: RunFolder, terminal: Terminal) -> None:
    """A full disk must not change what a finished run says."""
    try:
        terminal.say(f"Report: {write_report(read_run(folder.root))}")
    except ConfigError as error:
        terminal.warn(f"there is no report: {error}")


def _baseline_json(baseline: Baseline) -> dict[str, Any]:
    return {
        "deploy_point": baseline.deploy.label,
        "values": {key: report.value_json(m, "base") for key, m in baseline.scored.values.items()},
        "logits": dict(baseline.logits),
    }


def _say_baseline(terminal: Terminal, baseline: Baseline) -> None:
    values = baseline.scored.values
    shown = ", ".join(f"{key} {show(values[key], True)}" for key in values
                      if OBJECTIVES.get(key) and OBJECTIVES[key].source == "predictions")
    logits = baseline.logits
    terminal.say(f"untrained base ({baseline.deploy.label}): {shown}; exported logits agree with PyTorch on "
                 f"{logits['n']} prompts (largest difference {logits['relative']:.1e} of the largest logit)")
