"""The engine's scoring of pairs, with everything real: worker, store, ModelBuilder, probe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune import answers
from autotune.config import load_config
from autotune.machine_lock import MachineLock
from autotune.pipeline import base_model
from autotune.preparation import Prepared, prepare
from autotune.questions import Questions, answers_task, row_order
from autotune.report.terminal import Terminal
from autotune.run_folder import RunFolder, environment
from autotune.search.scoring import Scorer
from autotune.search.screening import screen
from autotune.storage.entry_key import Key
from autotune.storage.stage_runner import StageRunner
from autotune.storage.store import Entry, Store
from autotune.targets.local import run_probe
from autotune.workers import Worker
from objectives.request import PROTOCOL
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams
from tests import studies

INT4 = DeployParams("int4")


class Engine:
    """A prepared tiny study, one trained adapter, and the scorer of them."""

    def __init__(self, folder: Path, run: RunFolder, worker: Worker) -> None:
        config = load_config(studies.write_study(folder))
        terminal = Terminal(quiet=True)
        self.store = Store(folder / "store")
        self.runner = StageRunner(self.store, worker, run, terminal, MachineLock(folder / "lock"))
        source = base_model.resolve(config.file.model, config.base_dir)
        self.prepared: Prepared = prepare(config, source, self.runner, terminal)
        questions = Questions(8, (), tuple(config.measured()), 0.95, folder, 0.002)
        self.scorer = Scorer(self.prepared, questions, self.runner, run, {"cpu": environment()["cpu"]})
        self.questions, self.config, self.run = questions, config, run
        self.screening = screen(self.prepared.points, config.constraints, self.scorer, terminal.warn)
        self.adapter = self.train(2e-3)

    def train(self, rate: float) -> Entry:
        params = AdapterParams(4, 8, rate, epochs=1)
        return self.runner.adapter(self.prepared.base, self.prepared.data_entry, params, 0, 1)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    with RunFolder(folder / "run", "0" * 64, {}) as run:
        worker = Worker(run.log)
        try:
            yield Engine(folder, run, worker)
        finally:
            worker.close()


def test_values_of_the_point_come_from_the_base_and_those_of_the_answers_from_the_artifact(engine: Engine) -> None:
    scored = engine.scorer.score(engine.adapter, INT4)
    screened = next(s for s in engine.screening.kept if s.point == INT4)
    assert scored.values["latency_ms.p50"] == screened.values["latency_ms.p50"]
    assert {"latency_ms.p50", "ttft_ms.p95", "peak_rss_mb", "load_ms"} <= scored.on_base
    assert not {"accuracy", "size_mb"} & scored.on_base
    assert scored.values["accuracy"].n == len(engine.prepared.data.valid)
    assert set(scored.stages) == {"point", "probe", "assemble", "answers"}
    assert scored.stages["probe"] == screened.stages["probe"]


def test_what_is_out_of_reach_stops_early_and_says_with_which_chance_of_error(engine: Engine) -> None:
    rows = len(engine.prepared.data.valid)
    adapter = engine.train(1e-3)
    scored = engine.scorer.score(adapter, INT4, needed=rows)
    assert scored.stopped
    assert scored.stopped.answered < rows
    assert scored.values["accuracy"].n == scored.stopped.answered
    assert scored.values["accuracy"].value == scored.stopped.right / scored.stopped.answered
    assert f"after {scored.stopped.answered} of {rows} rows" in scored.stopped.sentence()
    assert "at most 0.002" in scored.stopped.sentence()
    # Asked again without need, all rows are answered; then nothing is left to stop.
    whole = engine.scorer.score(adapter, INT4)
    assert not whole.stopped
    again = engine.scorer.score(adapter, INT4, needed=rows)
    assert not again.stopped
    assert again.stages["answers"].cached


def test_scoring_that_was_not_stopped_counts_for_whoever_needs_all_rows(engine: Engine) -> None:
    adapter = engine.train(1.5e-3)
    first = engine.scorer.score(adapter, INT4, needed=1)
    assert not first.stopped
    second = engine.scorer.score(adapter, INT4)
    assert second.stages["answers"].cached
    assert second.values["accuracy"] == first.values["accuracy"]


def test_rows_are_asked_in_mixed_order_and_answered_in_their_own(engine: Engine) -> None:
    data = engine.prepared.data
    order = row_order(data)
    assert sorted(order) == list(range(len(data.valid))) != list(order)
    entry = engine.runner.point(engine.prepared.base, _template(engine), INT4, "cpu", engine.prepared.context_length)
    request = {"protocol": PROTOCOL, "artifact": str(entry.path / "artifact"), "provider": "cpu", "threads": 1}
    mixed = run_probe({**request, "tasks": [answers_task(data, engine.questions, order)]}, workdir=engine.run.scratch)
    plain = tuple(range(len(data.valid)))
    straight = run_probe({**request, "tasks": [answers_task(data, engine.questions, plain)]},
                         workdir=engine.run.scratch)
    assert answers.texts(mixed, data, order) == answers.texts(straight, data, plain)
    assert answers.right(mixed, data, order) == answers.right(straight, data, plain)


def test_a_damaged_point_is_made_again_with_a_line_to_the_user(engine: Engine) -> None:
    said: list[str] = []
    store = Store(engine.store.root, said.append)
    key = next(e.key for e in store.entries() if e.key.stage == "point")
    file = store.path(key) / "layout.json"
    file.write_text(file.read_text()[:-1])
    assert store.get(key) is None
    assert "layout.json" in said[0]
    assert "made again" in said[0]


def test_the_manifest_says_what_made_the_entry(engine: Engine) -> None:
    scored = engine.scorer.score(engine.adapter, INT4)
    stage, digest = str(engine.scorer._key(engine.adapter, INT4)).split("/")
    path = engine.store.path(Key(stage, digest))
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["inputs"]["adapter"] == str(engine.adapter.key)
    assert manifest["inputs"]["point"] == scored.stages["point"].key
    assert set(manifest["libraries"]) == {"onnxruntime", "safetensors", "torch"}
    assert all(len(entry["sha256"]) == 64 for entry in manifest["files"].values())


def _template(engine: Engine):  # type: ignore[no-untyped-def]
    from autotune.pipeline.template_params import template_params

    return template_params(INT4, "cpu", engine.prepared.context_length)
