"""The benchmarks compare what they say, notice when it is not equal, and refuse what a machine cannot do."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from autotune.config import resolve_config
from autotune.pipeline.architectures import require_supported, tensor_shapes
from autotune.pipeline.assemble import assemble
from autotune.pipeline.merge import MergedWeights
from autotune.pipeline.point import make_point
from autotune.pipeline.template import make_template
from autotune.pipeline.template_params import template_params
from benchmarks import bit_for_bit, naive_side, packed_figures, real_size, shapes, versus_naive
from benchmarks.adapters import merge_whole, random_adapter
from benchmarks.grid import ADAPTERS, TONE, Side, write_rows
from benchmarks.versus_naive import Run, naive_makespan, naive_trials
from search_spaces.deploy import DeployParams
from tests import tiny
from tests.running import logits, model_of

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 400}


def arguments(model: Path | str = "m", **changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"model": model, "adapters": 4, "points": 8, "steps": 2, "batch": 2, "threads": 1,
                                 "sample_naive": None, **changes})


def pairs(trials: list[dict[str, Any]]) -> list[tuple[int, float, str]]:
    return [(t["adapter"]["rank"], t["adapter"]["alpha"], DeployParams(**t["point"]).label) for t in trials]


def run_of(accuracy: dict[Any, float], seconds: dict[Any, float] | None = None, makespan: float = 0.0) -> Run:
    given = {trial: [0, 1] for trial in accuracy}
    return Run(Side(makespan, 0, 0.0, accuracy, {}, {}), given, seconds or {})


def test_both_sides_of_the_naive_comparison_get_the_same_grid(tmp_path: Path) -> None:
    args = arguments(tiny.make_model(tmp_path / "model"))
    write_rows([TONE / "valid.jsonl"], tmp_path, 8, 8)
    config = resolve_config(versus_naive.study(args), "study.yaml", tmp_path)
    assert config.file.early_stop_error == 0
    assert config.constraints == ()
    ours = {(r, float(a), point.label) for r, a in ADAPTERS for point in config.space.deploy}
    assert len(ours) == 32
    assert sorted(pairs(naive_trials(args))) == sorted(ours)


@pytest.mark.parametrize("sample", [8, 11, 20])
def test_a_sample_of_naive_trials_is_spread_over_adapters_and_points(sample: int) -> None:
    chosen = pairs(naive_trials(arguments(sample_naive=sample)))
    assert len(set(chosen)) == sample
    for found, kinds in (([label for _, _, label in chosen], 8), ([(r, a) for r, a, _ in chosen], 4)):
        counts = [found.count(kind) for kind in set(found)]
        assert len(counts) == kinds
        assert max(counts) - min(counts) <= 1


def test_a_sampled_makespan_is_the_mean_of_each_point_times_the_adapters_and_says_that_it_was_not_measured() -> None:
    fp32, fp16 = versus_naive.labels(arguments(points=2))
    seconds = {(8, 16.0, fp32): 10.0, (16, 16.0, fp32): 14.0, (8, 32.0, fp16): 3.0}
    naive = run_of(dict.fromkeys(seconds, 0.5), seconds, makespan=7.0 + sum(seconds.values()))
    assert naive_makespan(naive, 4, [fp32, fp16]) == 7.0 + 12.0 * 4 + 3.0 * 4
    said = "\n".join(versus_naive.verdict(arguments(sample_naive=3, points=2), run_of({}), naive))
    assert "EXTRAPOLATED" in said
    assert "3 of the 8" in said


def test_a_single_other_answer_fails_the_comparison_though_the_accuracies_are_equal() -> None:
    args = arguments(adapters=1, points=1)
    trial = (8, 16.0, "fp32")
    ours, naive = run_of({trial: 0.5}, makespan=1.0), run_of({trial: 0.5}, {trial: 1.0}, makespan=3.0)
    assert not versus_naive.failed(args, ours, naive)
    other = dataclasses.replace(naive, answers={trial: [1, 0]})
    assert versus_naive.disagreements(ours, other) == [trial]
    assert versus_naive.failed(args, ours, other)
    assert versus_naive.failed(args, run_of({}), naive)


def test_a_naive_trial_answers_every_row_and_leaves_nothing(tmp_path: Path) -> None:
    args = arguments(tiny.make_model(tmp_path / "model"), sample_naive=1, points=1, adapters=1)
    write_rows([TONE / "valid.jsonl"], tmp_path, 4, 6)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(versus_naive.study(args)), encoding="utf-8")
    folder = tmp_path / "naive"
    folder.mkdir()
    job = {"study": str(tmp_path / "study.yaml"), "folder": str(folder), "events": str(folder / "events.jsonl"),
           "trials": naive_trials(args)}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, naive_side.__file__, folder / "job.json"], check=True, env=env, timeout=120)
    events = versus_naive.read_events(folder / "events.jsonl")
    assert [e["stage"] for e in events if e["event"] == "stage_end"] == [
        "start", "data", "train", "merge", "ModelBuilder", "write", "probe", "delete"]
    assert len(events[-1]["answers"]) == 6
    assert not (folder / "trial-0").exists()


def test_an_artifact_of_the_random_adapter_is_that_of_the_model_that_peft_merges(tmp_path: Path) -> None:
    base = model_of("phi3")
    adapter = random_adapter(base, tmp_path / "adapter")
    merged = merge_whole(base, adapter, tmp_path / "merged")
    made, int4 = {}, DeployParams("int4")
    for name, source in (("base", base), ("merged", merged)):
        make_template(source, tmp_path / f"{name}-template", template_params(int4, "cpu", 256))
        made[name] = make_point(tmp_path / f"{name}-template", source, tmp_path / name, int4, "cpu", 256)
    ours = assemble(tmp_path / "base", base, adapter, tmp_path / "ours")
    assert (logits(ours.path) == logits(made["merged"].path)).all()
    assert abs(logits(ours.path) - logits(made["base"].path)).max() > 0.1


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_a_written_shape_is_a_whole_model_in_bf16(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_SHARD_BYTES", 100_000)
    real = shapes.SHAPES[name]
    heads = {"num_key_value_heads": 4, "head_dim": 16} if real.fused else {"num_key_value_heads": 2, "head_dim": 16}
    shape = dataclasses.replace(real, config=real.config | SMALL | heads)
    folder = shapes.write_model(shape, 2, tmp_path / "model")
    assert len(list(folder.glob("*.safetensors"))) > 1
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert model.dtype == torch.bfloat16
    adapter = random_adapter(folder, tmp_path / "adapter")
    suffixes = require_supported(folder).modules("all-linear")
    linear = {n.removesuffix(".weight") for n in tensor_shapes(folder)
              if n.split(".")[-2] in suffixes and n.endswith(".weight")}
    assert MergedWeights(folder, adapter).modules() == linear


def test_real_shapes_have_the_published_sizes() -> None:
    counts = {}
    for name, shape in shapes.SHAPES.items():
        counts[name] = sum(torch.Size(dims).numel() for _, dims in shapes.tensors(shape))
    assert counts == {"llama-135m": 134_515_008, "qwen-0.5b": 494_032_768, "llama-3.2-1b": 1_235_814_400,
                      "phi-3-mini": 3_821_079_552}


def test_operations_of_a_packed_step_are_counted() -> None:
    config = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
              "num_key_value_heads": 1, "vocab_size": 100, "tie_word_embeddings": True}
    found = packed_figures.count(shapes.ModelShape("LlamaConfig", config, fused=False), 3, 5, 7, 2)
    places, ins_and_outs = 5 * 7, [(8, 8), (8, 4), (8, 4), (8, 8), (8, 16), (8, 16), (16, 8)]
    assert found.base == 2 * places * 4 * sum(a * b for a, b in ins_and_outs)
    assert found.adapter == 2 * places * 6 * 3 * sum(a + b for a, b in ins_and_outs)
    assert found.attention == 2 * 5 * (6 * 2 * 7 * 7 * 8) // 2
    assert found.head == 5 * 2 * 4 * 8 * 100


def test_a_machine_that_is_too_small_is_told_what_is_lacking() -> None:
    found = real_size.Needs(disk=10e9, memory=17e9, hungriest="the template")
    assert real_size.refusal(found, 11e9, 18e9) is None
    assert "disk: about 10.0 GB needed, 9.0 GB free" in str(real_size.refusal(found, 9e9, 18e9))
    assert "17.0 GB needed for the template, 8.0 GB free" in str(real_size.refusal(found, 11e9, 8e9))
    shape = shapes.SHAPES["phi-3-mini"]
    whole, small = (real_size.needs(shape, None, [DeployParams(p)], False) for p in ("fp16", "int4"))
    assert whole.disk > small.disk
    assert (whole.hungriest, small.hungriest) == ("the point fp16", "the template")


def test_a_task_is_measured_in_its_own_process(tmp_path: Path) -> None:
    tiny.make_model(tmp_path / "base")
    taken = real_size.run_task(tmp_path, "adapter", "writing the adapter")
    assert taken.size == sum(f.stat().st_size for f in (tmp_path / "out").iterdir())
    assert taken.written >= taken.size
    assert taken.peak_rss > taken.anonymous > 50e6


def test_a_task_that_fails_gives_no_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real_size_task.py").write_text("print('{}'); raise ValueError('no room')", encoding="utf-8")
    monkeypatch.setattr(real_size, "HERE", tmp_path)
    with pytest.raises(real_size.TaskError, match="template ended with exit code 1; it last said: ValueError: no room"):
        real_size.run_task(tmp_path, "template")


def test_an_assembly_that_holds_too_much_is_told() -> None:
    def taken(task: str, anonymous: float) -> real_size.Taken:
        return real_size.Taken(task, 1.0, 0, int(anonymous), 0, 0, 0, 0, 0)

    tasks = [taken("idle process", 0.4e9), taken("point fp16", 9e9), taken("artifact int4-b32", 1e9)]
    assert "Assembly stays within 2 GiB" in "\n".join(real_size.tables(tasks))
    assert "Assembly does NOT stay within 2 GiB" in "\n".join(real_size.tables([*tasks, taken("artifact fp16", 3e9)]))


def test_points_are_compared_on_the_template_that_a_study_would_use(tmp_path: Path) -> None:
    found = {p.label: bit_for_bit.template_of(tmp_path, p, 1024) for p in bit_for_bit.POINTS}
    full = found.pop("int4-b32-fullhead")
    assert set(found.values()) == {found["fp32"]}
    assert full != found["fp32"]
