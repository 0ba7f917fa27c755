"""Replays on a made-up table: costs are the table's, every search ends, and fronts are valued on test rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from autotune.constraints import parse as limit
from autotune.pareto import hypervolume
from benchmarks.replay.nearest import Nearest, coordinates, space_of
from benchmarks.replay.others import FanOut
from benchmarks.replay.ours import Ours
from benchmarks.replay.replay import NAMES, OURS, lines, main, quartiles, ratio, searches
from benchmarks.replay.table import Table, load, parse
from benchmarks.replay.world import World, Yardstick
from tests.replays import make_table

LIMITS = [limit("accuracy >= 0.5"), limit("latency_ms.p50 <= 80"), limit("size_mb <= 560")]
SMALL = make_table(seed=1, adapters=8, valid=100, test=200)


@pytest.fixture(scope="module")
def table() -> Table:
    return parse(SMALL)


@pytest.mark.parametrize("name", NAMES)
def test_every_search_ends_is_repeatable_and_tries_no_pair_twice(table: Table, name: str) -> None:
    logs = []
    for _ in range(2):
        world = World(table, LIMITS)
        searches(table.judged_rungs)[name].run(world, 3)
        logs.append(world.log)
    pairs = [(number, label) for _, number, label in logs[0]]
    assert logs[0] == logs[1]
    assert pairs
    assert len(pairs) == len(set(pairs))


def test_rungs_that_were_judged_in_part_are_not_used() -> None:
    raw = json.loads(json.dumps(SMALL))
    del raw["adapters"][3]["rungs"][0]["judged"]["int8-b32"]
    raw["adapters"][5] |= {"failed": "the loss diverged", "rungs": [], "final": {}}
    assert parse(SMALL).judged_rungs == (0.2, 0.4, 0.6, 0.8, 1.0)
    assert parse(raw).judged_rungs == (0.4, 0.6, 0.8, 1.0)
    world = World(parse(raw), LIMITS)
    Ours((0.4, 1.0)).run(world, 0)
    assert 5 not in {number for _, number, _ in world.log}


def test_a_full_search_costs_every_second_of_the_table_once(table: Table) -> None:
    world = World(table, LIMITS)
    FanOut("random").run(world, 0)
    final = sum(f.assemble_s + f.score_s for a in table.adapters for f in a.final.values())
    assert world.seconds == pytest.approx(8 * 9.0 + sum(a.train_s for a in table.adapters) + final)


def test_training_further_costs_the_steps_between_and_judging_what_is_asked(table: Table) -> None:
    world = World(table, LIMITS, judge_rows=50)
    assert world.train(0, 0.2, 0.6) == pytest.approx(sum(r.seconds for r in table.adapters[0].rungs[1:3]))
    before = world.seconds
    found = world.judge(0, 0.6, ["int8-b32", "int4-b32"])
    assert world.seconds - before == pytest.approx(3 * 4.5)  # full precision is always among them
    assert found.rows == 50
    assert set(found.right) == {"fp16", "int8-b32", "int4-b32"}
    assert found.loss == table.adapters[0].rungs[2].valid_loss
    assert found.right["fp16"] == table.adapters[0].rungs[2].judged["fp32"].right[
        np.linspace(0, 99, 50).round().astype(int)].sum()


def test_a_front_is_chosen_on_validation_rows_and_valued_on_test_rows(table: Table) -> None:
    yardstick = Yardstick(table, LIMITS)
    pairs = [(a.number, label) for a in table.adapters for label in a.final]
    share = yardstick.shares([(float(i), *pair) for i, pair in enumerate(pairs)])[-1][1]
    assert share == pytest.approx(1)
    first = table.adapters[0].final["int8-b32"]
    alone = yardstick.shares([(0.0, 0, "int8-b32")])[0][1] * yardstick.whole
    box = (80 - 30) * (560 - 200)
    plain = hypervolume([(-first.test.mean(), 45.0, 340.0)], (-0.5, 80.0, 560.0)) / box
    assert alone == pytest.approx(plain if first.valid.mean() >= 0.5 else 0)


def test_limits_that_nothing_meets_are_named(table: Table) -> None:
    with pytest.raises(ValueError, match=r"accuracy >= 0\.99"):
        Yardstick(table, [limit("accuracy >= 0.99")])


def test_a_proposal_stands_for_the_nearest_adapter_that_is_free(table: Table) -> None:
    space = space_of(table)
    nearest = Nearest(table, space)
    for adapter in table.adapters:
        assert nearest(coordinates(adapter.params), range(8)) is adapter
        assert nearest(coordinates(adapter.params), set(range(8)) - {adapter.number}) is not adapter


def test_a_search_with_rungs_decides_on_every_adapter_at_much_less_cost_and_keeps_the_front() -> None:
    table = parse(make_table(seed=2, adapters=24, valid=200, test=400))
    yardstick, whole, ours = Yardstick(table, LIMITS), World(table, LIMITS), World(table, LIMITS)
    FanOut("random").run(whole, 0)
    assert Ours().run(ours, 0) == "every adapter of the space has been tried"
    assert ours.seconds < 0.6 * whole.seconds
    assert yardstick.shares(ours.log)[-1][1] > 0.93


def test_the_command_tells_costs_and_draws_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "table.json.gz"
    file.write_bytes(gzip.compress(json.dumps(SMALL).encode()))
    assert load(file).rungs == (0.2, 0.4, 0.6, 0.8, 1.0)
    required = [word for c in LIMITS for word in ("--require", c.expr)]
    names = [OURS, "TPE, fan-out"]
    assert main([str(file), *required, "--seeds", "2", "--plot", str(tmp_path / "plot.html"), "--only", *names]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in told[2:]] == names
    assert "plotly" in (tmp_path / "plot.html").read_text(encoding="utf-8")


def test_a_search_that_never_gets_there_counts_as_endless() -> None:
    inf = float("inf")
    assert quartiles([1.0, 2.0, inf, inf]) == [1.0, 2.0, inf]
    assert ratio([4.0] * 4, [2.0] * 4) == (2.0, 2.0, 2.0)
    told = lines({OURS: [[(5.0, 0.96)]], "random": [[(9.0, 0.5)]]})
    assert "| random | – | – | – |" in told[3]
    assert told[3].endswith("| 1 of 1 |")


def test_another_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="accepted: autotune/replay-table@1"):
        parse({**SMALL, "schema": "x"})
