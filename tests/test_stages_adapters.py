"""The stage that trains several adapters makes what the stage for one makes, and says which failed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autotune.errors import TrainingError
from autotune.pipeline import stages
from autotune.pipeline.packed.job import AdapterJob
from tests import tiny
from tests.packing import weights
from tests.test_train import DATA, PARAMS


def test_each_folder_is_what_a_training_alone_writes(tmp_path: Path) -> None:
    base = tiny.make_model(tmp_path / "base", "llama")
    DATA.save(tmp_path / "data.json")
    wanted = [PARAMS, replace(PARAMS, variant="dora", rank=3), replace(PARAMS, learning_rate=1e30)]
    wanted += [replace(PARAMS, rank=4, dropout=0.1, base_precision="nf4"), replace(PARAMS, targets="qv", steps=5)]
    outs = [tmp_path / str(i) for i in range(len(wanted))]
    jobs = [AdapterJob(params, out, seed=3) for params, out in zip(wanted, outs, strict=True)]
    found = stages.make_adapters(base, tmp_path / "data.json", jobs, threads=1)
    assert [isinstance(seconds, float) for seconds in found] == [True, True, False, True, True]
    assert isinstance(found[2], TrainingError)
    assert not outs[2].exists()
    for params, out in zip(wanted, outs, strict=True):
        if params.learning_rate > 1:
            continue
        stages.make_adapter(base, tmp_path / "data.json", params, tmp_path / "alone", seed=3, threads=1)
        mine, record = (json.loads((f / stages.TRAINING_FILE).read_text()) for f in (out, tmp_path / "alone"))
        assert mine.keys() == record.keys()
        assert {k: mine[k] for k in ("steps", "tokens")} == {k: record[k] for k in ("steps", "tokens")}
        assert mine["losses"] == pytest.approx(record["losses"], rel=1e-3)
        for name, tensor in weights(tmp_path / "alone").items():
            assert float((weights(out)[name] - tensor).norm() / tensor.norm()) < 1e-3
        config = "adapter_config.json"
        assert (out / config).read_text() == (tmp_path / "alone" / config).read_text()
