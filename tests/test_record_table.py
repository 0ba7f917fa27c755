"""A table is recorded, measured and joined by its own commands, on a tiny model; and the rules behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotune.pipeline.tokens import Example, TokenizedData
from benchmarks.replay.drawing import EXPERTS, PIECES, POINTS, Plan, draw
from benchmarks.replay.joining import StepCost, seconds
from benchmarks.replay.record_table import first_of_each
from benchmarks.replay.table import Table, load
from benchmarks.replay.workshop import Piece, Workshop, work_off
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams
from tests import studies, tiny

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "replay" / "record_table.py"
FP16, INT4 = DeployParams("fp16"), DeployParams("int4")
#: The last one's learning rate is beyond all reason.
ADAPTERS = (
    AdapterParams(4, 8, 5e-3, epochs=2, batch_size=8), AdapterParams(8, 8, 5e-3, "attention", epochs=2, batch_size=8),
    AdapterParams(4, 8, 1e25, epochs=2, batch_size=8),
)


def command(folder: Path, name: str, *options: object) -> None:
    places = ["--base", folder / "model", "--work", folder / "work"]
    subprocess.run([sys.executable, SCRIPT, name, *map(str, (*places, *options))], check=True, cwd=folder,
                   env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)


def train(folder: Path) -> None:
    command(folder, "train", "--records", folder / "records.json.gz", "--workers", 1, "--judges", 1, "--threads", 1,
            "--pieces", 0, 1)


def join(folder: Path) -> Path:
    out = folder / "table.json.gz"
    command(folder, "join", "--records", folder / "records.json.gz", "--costs", folder / "costs", "--out", out)
    return out


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    tiny.make_model(folder / "model", "gemma3")
    for seed, (split, count) in enumerate({"train": 40, "valid": 18, "test": 24}.items()):
        lines = (json.dumps(row) + "\n" for row in studies.rows(count, seed))
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    files = [part for split in ("train", "valid", "test") for part in (f"--{split}", folder / f"{split}.jsonl")]
    command(folder, "plan", *files, "--count", 2, "--train-rows", 36, "--context", 256)
    plan = Plan.load(folder / "work" / "plan.json")
    replace(plan, adapters=ADAPTERS, points=(FP16, INT4)).save(folder / "work" / "plan.json")
    train(folder)
    command(folder, "measure", "--costs", folder / "costs", "--threads", 1)
    join(folder)
    return folder


@pytest.fixture(scope="module")
def table(recorded: Path) -> Table:
    return load(recorded / "table.json.gz")


def test_every_adapter_has_its_rungs_and_one_that_failed_says_why(table: Table) -> None:
    assert [(a.steps, len(a.rungs)) for a in table.adapters] == [(10, 5), (10, 5), (10, 0)]
    assert [r.step for r in table.adapters[0].rungs] == [2, 4, 6, 8, 10]
    assert table.adapters[0].failed is None
    assert "learning rate" in (table.adapters[2].failed or "")
    assert table.adapters[2].final == {}


def test_rungs_are_judged_at_every_rounding_where_that_was_asked_for(table: Table) -> None:
    by_rung = [set(rung.judged) for rung in table.adapters[0].rungs]
    everything = {"fp32", "int4-b32"}  # fp16 answers as full precision does
    assert by_rung == [everything, everything, {"fp32"}, {"fp32"}, everything]
    assert table.adapters[0].rungs[0].valid_loss != table.adapters[0].rungs[4].valid_loss


def test_the_artifacts_answers_are_in_the_table_and_fp16_answers_as_its_weights_do(
    recorded: Path, table: Table
) -> None:
    asked = json.loads((recorded / "work" / "answers" / "1-int4-b32-0.json").read_text(encoding="utf-8"))
    final = table.adapters[1].final
    assert "".join("1" if right else "0" for right in final["int4-b32"].valid) == asked["right"]
    assert len(final["int4-b32"].test) == 24
    assert (final["fp16"].valid == table.adapters[1].rungs[4].judged["fp32"].right).all()
    assert table.provenance["agreement"]["fp16"]["same"] == 36


def test_seconds_and_sizes_are_those_of_the_measuring_machine(recorded: Path, table: Table) -> None:
    assert all(r.seconds > 0 and all(j.seconds > 0 for j in r.judged.values()) for r in table.adapters[0].rungs)
    assert all(f.assemble_s > 0 and f.score_s > 0 for f in table.adapters[0].final.values())
    fp16, int4 = table.points
    assert fp16.size_mb > int4.size_mb > 0
    assert int4.latency_ms["p50_low"] <= int4.latency_ms["p50"] <= int4.latency_ms["p50_high"]


def test_recording_again_makes_nothing_anew_and_gives_the_same_table(recorded: Path) -> None:
    before = (recorded / "table.json.gz").read_bytes()
    files = [f for kind in ("training", "judged", "answers") for f in (recorded / "work" / kind).iterdir()]
    times = {f: f.stat().st_mtime_ns for f in files}
    train(recorded)
    assert {f: f.stat().st_mtime_ns for f in files} == times
    assert join(recorded).read_bytes() == before


def test_drawn_adapters_begin_with_the_expert_points_and_stay_in_the_space() -> None:
    drawn = draw(48, 0)
    assert tuple(drawn[:4]) == EXPERTS
    assert drawn[:20] == draw(20, 0)
    assert len(set(drawn)) == 48
    for params in drawn[4:]:
        assert 4 <= params.rank <= 128
        assert 0.49 <= params.scale <= 4.01
        assert 1e-4 <= params.learning_rate <= 2e-3
    assert {p.targets for p in drawn} == {"all-linear", "attention", "mlp"}
    assert len({p.label for p in POINTS}) == 8


def test_training_rows_are_the_first_of_each_class_in_their_proportions() -> None:
    lines = [json.dumps({"phrase": str(i), "tone": "joy" if i % 3 else "fear"}) for i in range(30)]
    chosen = [json.loads(line) for line in first_of_each(lines, 10)]
    assert [row["tone"] for row in chosen].count("fear") == 3
    assert [int(row["phrase"]) for row in chosen] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]


def test_pieces_hold_each_row_once(tmp_path: Path) -> None:
    rows = tuple(Example((i,), (1,), "", "") for i in range(20))
    TokenizedData("choice", False, 1, rows, rows[:3], rows).save(tmp_path / "data.json")
    Plan((), (), (1.0,), 0, 64).save(tmp_path / "plan.json")
    shop = Workshop(tmp_path, tmp_path)
    assert shop.rows(0) == list(rows[:3])
    assert sorted(row.prompt for piece in range(1, len(PIECES) + 1) for row in shop.rows(piece)) == [
        row.prompt for row in rows]


def test_a_piece_is_done_by_one_process_and_a_failing_one_costs_the_others_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TokenizedData("choice", False, 1, (), (), ()).save(tmp_path / "data.json")
    Plan((), (), (1.0,), 0, 64).save(tmp_path / "plan.json")
    shop, done = Workshop(tmp_path, tmp_path), []

    def fail() -> None:
        raise ValueError("no such luck")

    pieces = [Piece("a", "fails", tmp_path / "never", fail),
              Piece("a", "taken", tmp_path / "elsewhere", lambda: done.append("taken")),
              Piece("a", "works", tmp_path / "works", lambda: (tmp_path / "works").touch())]
    assert shop.claim(pieces[1])

    def offered() -> Iterator[Piece]:
        return (piece for piece in pieces if not piece.done.exists())

    work_off(shop, offered, 1e12, lambda: False)
    assert (tmp_path / "works").exists()
    assert done == []
    assert "no such luck" in capsys.readouterr().err
    shop.forget_claims()
    assert shop.claim(pieces[0])


def test_a_disturbed_piece_counts_by_processor_seconds() -> None:
    piece = {"wall_s": 10.0, "cpu_s": 12.0, "others": 0.05}
    assert seconds(piece, 2) == 10.0
    assert seconds({**piece, "others": 0.6}, 2) == 6.0
    assert seconds({**piece, "cpu_s": 40.0, "others": 0.6}, 2) == 10.0


def test_a_steps_seconds_follow_from_the_measured_ones() -> None:
    def measured(targets: str, rank: int, batch: int, dropout: float, taken: float) -> dict[str, Any]:
        return {"targets": targets, "rank": rank, "batch_size": batch, "dropout": dropout, "tokens": 10.0 * batch,
                "wall_s": taken, "cpu_s": taken, "others": 0.0}

    def taken(rank: int, tokens: float) -> float:
        return 0.5 + tokens * (0.01 + 0.0001 * rank)

    steps = [measured("all-linear", 16, 8, 0.0, taken(16, 80)), measured("all-linear", 128, 8, 0.0, taken(128, 80)),
             measured("all-linear", 16, 16, 0.0, taken(16, 160)), measured("all-linear", 16, 8, 0.1, 2 * taken(16, 80))]
    cost = StepCost.fitted(steps, 2)
    assert cost.of(AdapterParams(64, 64, 1e-3), 100.0) == pytest.approx(taken(64, 100))
    assert cost.of(AdapterParams(64, 64, 1e-3, dropout=0.05), 100.0) == pytest.approx(2 * taken(64, 100))
