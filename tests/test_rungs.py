"""Adapters trained in rungs are those trained in one go; a kill costs the current rung alone; company costs nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autotune.errors import TrainingError
from autotune.pipeline import judgement, stages
from autotune.pipeline.point import make_point
from autotune.pipeline.rungs import pausable, rung_steps
from autotune.pipeline.template import make_template
from autotune.pipeline.template_params import template_params
from autotune.pipeline.tokens import TokenizedData
from autotune.run_folder import RunFolder
from autotune.storage import keys
from autotune.storage.entry_key import make_key
from autotune.storage.store import Entry
from search_spaces.deploy import DeployParams
from tests import studies, tiny
from tests.packing import weights
from tests.rung_process import FRACTIONS, JOBS, PARAMS, Bench, bench, job
from tests.test_judge import LABELS, _examples

INT4 = DeployParams("int4")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.make_model(tmp_path / "base")
    (tmp_path / "data").mkdir()
    tok = tiny.tokenizer()
    label_ids = tuple(tuple(tok(label, add_special_tokens=False)["input_ids"]) for label in LABELS)
    data = TokenizedData("choice", False, tok.eos_token_id, _examples(36, 0), _examples(20, 1), (), LABELS, label_ids)
    data.save(tmp_path / "data" / stages.DATA_FILE)
    return tmp_path


@pytest.fixture
def made(folder: Path) -> Iterator[Bench]:
    with bench(folder, "run") as opened:
        yield opened


def record(entry: Entry) -> Any:
    return json.loads((entry.path / stages.TRAINING_FILE).read_text())


def ends(run: RunFolder) -> list[dict[str, Any]]:
    return [e for e in run.events() if e["event"] == "stage_end"]


def test_the_last_rung_is_the_adapter_trained_in_one_go_bit_for_bit(made: Bench, folder: Path) -> None:
    with bench(folder, "whole", "other-store") as other:
        straight = other.runner.adapter(other.base, other.data, PARAMS, 3, 1)
    first, second, last = (made.train(rung, PARAMS)[0] for rung in range(3))
    assert last.key == straight.key == keys.adapter(made.base.key, made.data.key, PARAMS, 3)
    assert len({first.key, second.key, last.key}) == 3
    for name, tensor in weights(straight.path).items():
        assert torch.equal(weights(last.path)[name], tensor), name
    whole, records = record(straight), [record(entry) for entry in (first, second, last)]
    assert {name: records[-1][name] for name in whole if name not in ("seconds", "resumed_at")} == {
        name: value for name, value in whole.items() if name not in ("seconds", "resumed_at")}
    assert [(r["resumed_at"], r["steps"]) for r in records] == [(0, 8), (8, 16), (16, 40)]
    for rung in records:  # each is the beginning of the same training
        assert rung["losses"] == whole["losses"][: rung["steps"]]
    assert {f.name for f in last.path.iterdir()} == {f.name for f in straight.path.iterdir()}


def test_a_rung_without_the_one_before_is_trained_from_where_there_is_one(made: Bench) -> None:
    (second,) = made.train(1, PARAMS)
    assert record(second)["resumed_at"] == 0
    made.train(0, PARAMS)
    assert record(made.train(2, PARAMS)[0])["resumed_at"] == 16


def test_one_that_diverges_costs_the_others_nothing(made: Bench) -> None:
    wild = replace(PARAMS, learning_rate=1e30)
    first, failed, second = made.runner.rungs(
        made.base, made.data, [job(own, 0) for own in (JOBS[0], wild, JOBS[1])], 1)
    assert isinstance(failed, TrainingError)
    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    assert [(e["event"], e["stage"]) for e in made.run.events() if e["event"] == "stage_failed"] == [
        ("stage_failed", "rung")]
    assert [(e["key"], e["seconds"]) for e in ends(made.run)] == [
        (str(entry.key), round(entry.seconds, 3)) for entry in (first, second)]
    assert all(entry.seconds > 0 for entry in (first, second))
    again = made.train(0, *JOBS)
    assert [entry.cached for entry in again] == [True, True]
    assert [e["cached"] for e in ends(made.run)] == [False, False, True, True]


def test_what_this_machine_cannot_train_at_all_costs_the_others_nothing(made: Bench) -> None:
    dora = replace(PARAMS, variant="dora")
    assert not pausable(dora, {})
    assert not pausable(PARAMS, {"attention_dropout": 0.1})
    found = made.runner.rungs(made.base, made.data, [job(dora, 0), job(PARAMS, 0)], 1)
    assert isinstance(found[0], TrainingError)
    assert "accepts lora and rslora" in found[0].reason
    in_one_go = replace(job(dora, 0), steps=rung_steps(dora, 36, [1]))
    (whole,) = made.runner.rungs(made.base, made.data, [in_one_go], 1)
    assert isinstance(whole, Entry)
    assert whole.key == keys.adapter(made.base.key, made.data.key, dora, 3)


def test_after_a_crash_each_of_the_batch_is_trained_alone(made: Bench) -> None:
    made.train(0, *JOBS)
    worker = made.worker.run(os.getpid)

    def kill_once() -> None:
        deadline = time.monotonic() + 60
        while not list((made.store.root / "rung").glob(".making-*")) and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill_once)
    killer.start()
    entries = made.train(1, *JOBS)
    killer.join()
    assert [record(entry)["steps"] for entry in entries] == [16, 12]
    assert made.worker.run(os.getpid) != worker


def start(folder: Path, run: str, rungs: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "tests.rung_process", str(folder), run, str(rungs)], text=True,
                            env=studies.environment(), stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("within", [False, True])
def test_kill_9_costs_no_more_than_the_rung_in_work(folder: Path, within: bool) -> None:
    process = start(folder, "killed", 3 if within else 1)
    assert process.stdout is not None
    assert process.stdout.readline() == "rung 0\n"
    deadline = time.monotonic() + 120
    while within and not list((folder / "store" / "rung").glob(".making-*")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    kill(process)
    with bench(folder, "killed") as made:
        assert [entry.cached for entry in made.train(0, *JOBS)] == [True, True]
        assert {record(entry)["resumed_at"] for entry in made.train(1, *JOBS)} == {8, 6}
        last = made.train(2, *JOBS)
    assert [record(entry)["steps"] for entry in last] == [40, 30]
    assert not list((folder / "store").glob("*/.making-*"))


def test_two_processes_that_want_the_same_rungs_train_each_once(folder: Path) -> None:
    processes = [start(folder, run, 3) for run in ("one", "two")]
    assert ["rung 2" in process.communicate(timeout=240)[0] for process in processes] == [True, True]
    trained = []
    for run in ("one", "two"):
        lines = (folder / run / "events.jsonl").read_text().splitlines()
        trained += [e["key"] for e in map(json.loads, lines) if e["event"] == "stage_end" and not e["cached"]]
    assert len(trained) == len(set(trained)) == len(JOBS) * len(FRACTIONS)


def test_a_judgement_is_an_entry_of_its_own_by_deploy_point(made: Bench, folder: Path) -> None:
    make_template(folder / "base", folder / "template", template_params(INT4, "cpu", 256))
    make_point(folder / "template", folder / "base", folder / "point", INT4, "cpu", 256)
    (rung,) = made.train(0, PARAMS)
    acc1, fp32 = replace(INT4, accuracy_level=1), DeployParams("fp32")
    points = {p: Entry(make_key("point", 1, p.flat()), folder / "point", 0.0, cached=True) for p in (INT4, acc1, fp32)}
    entry = made.runner.judgement(made.base, made.data, rung, points, 12, 1)
    found = judgement.read(entry.path, points)
    assert found.rows == 12
    assert found.right.keys() == found.losses.keys() == {"int4-b32", "int4-b32-acc1", "fp32"}
    assert found.right["int4-b32"] == found.right["int4-b32-acc1"]
    assert 0 <= found.right["fp32"] <= 12
    assert found.losses["fp32"] == found.loss != found.losses["int4-b32"]
    assert made.runner.judgement(made.base, made.data, rung, points, 12, 1).cached
    rounded = made.runner.judgement(made.base, made.data, rung, {INT4: points[INT4]}, 12, 1)
    alone = judgement.read(rounded.path, (INT4,))  # what no deploy point has is not judged
    assert alone.losses == {"int4-b32": found.losses["int4-b32"]}
    assert alone.loss == found.losses["int4-b32"]
    assert alone.right == {"int4-b32": found.right["int4-b32"]}
    others = [made.runner.judgement(made.base, made.data, rung, {fp32: points[fp32]}, 12, 1), rounded,
              made.runner.judgement(made.base, made.data, rung, points, 13, 1),
              made.runner.judgement(made.base, made.data, made.train(1, PARAMS)[0], points, 12, 1)]
    assert len({entry.key, *(other.key for other in others)}) == 5


def test_steps_of_rungs_rise_to_the_whole_training() -> None:
    assert rung_steps(replace(PARAMS, steps=None, epochs=2, batch_size=8), 80, FRACTIONS) == (4, 8, 20)
    assert rung_steps(replace(PARAMS, steps=1), 80, FRACTIONS) == (1, 1, 1)
    short = replace(job(PARAMS, 1), steps=(1, 1, 1))
    assert short.last
    assert short.earlier == ()
