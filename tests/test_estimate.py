"""Estimates: bigger asks cost more, and what does not fit is said with both figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autotune.estimate import Certifying, Estimate, artifact_bytes, changed_bytes, estimate, shortage, template_bytes
from autotune.pipeline.architectures import ModelFacts
from autotune.pipeline.tokens import Example, TokenizedData
from search_spaces.deploy import DeployParams

FACTS = ModelFacts("Gemma3ForCausalLM", 268_000_000, 168_000_000, 18, 640, 262_144, True, 32_768, 512)
ROW = Example(tuple(range(30)), (1, 2), "", "")
DATA = TokenizedData("choice", False, 1, (ROW,) * 512, (ROW,) * 128, ())
POINTS = (DeployParams("fp16"), DeployParams("int8"), DeployParams("int4"))


def ask(**changes: Any) -> Estimate:
    usual: dict[str, Any] = {
        "adapters": 4, "trials": None, "epochs": 1.0, "steps": None, "batch_size": 8, "gflops": 150.0,
        "prompt_tokens": 64, "new_tokens": 8, "samples": 20, "free_disk": 80e9, "free_memory": 20e9,
    }
    return estimate(FACTS, DATA, POINTS, **{**usual, **changes})


def test_time_follows_adapters_more_than_trials() -> None:
    base = ask()
    assert base.trials == 12
    assert ask(adapters=8).seconds > 1.8 * base.seconds
    assert ask(epochs=3.0).seconds_per_adapter > 2 * base.seconds_per_adapter
    assert ask(gflops=300.0).seconds < base.seconds
    assert ask(trials=6).trials == 6


def test_sizes_follow_bits_and_scales() -> None:
    sizes = [artifact_bytes(FACTS, p) / 1e6 for p in POINTS]
    assert sizes == pytest.approx([536, 301.5, 167.5], rel=0.01)
    assert artifact_bytes(FACTS, replace(POINTS[2], block_size=128)) < artifact_bytes(FACTS, POINTS[2])


def test_what_will_not_fit_is_said_with_both_figures_and_what_helps() -> None:
    assert ask().misfits == ()
    tight = ask(free_disk=1e8, free_memory=1e9)
    disk, memory = tight.misfits
    assert f"about {tight.disk / 1e9:.1f} GB needed, 0.1 GB free" in disk
    assert "--store" in disk
    assert f"about {tight.memory / 1e9:.1f} GB needed for {tight.hungriest}, 1.0 GB free" in memory
    assert shortage(tight.disk, tight.memory, 1e8, 1e9, tight.hungriest) == tight.misfits
    assert shortage(tight.disk, tight.memory, 1e8, 1e12) == (disk,)


def test_what_is_made_once_is_not_paid_by_every_adapter() -> None:
    one, many = ask(adapters=1), ask(adapters=21)
    assert one.templates_s == many.templates_s > 0
    assert many.seconds - one.seconds == pytest.approx(20 * (one.seconds_per_adapter + 3 * one.seconds_per_trial))


def test_a_certificate_is_paid_once_and_within_its_time() -> None:
    without, short = ask(), ask(certifying=Certifying(90, 1000.0, 0.0))
    assert short.seconds == pytest.approx(without.seconds + short.seconds_per_finalist)
    assert ask(certifying=Certifying(180, 1000.0, 0.0)).seconds_per_finalist > short.seconds_per_finalist + 10
    assert ask(certifying=Certifying(90, 5.0, 0.0)).seconds_per_finalist < short.seconds_per_finalist
    loaded = ask(certifying=Certifying(90, 1000.0, 60.0))
    assert loaded.seconds_per_finalist == pytest.approx(short.seconds_per_finalist + 60)


def test_a_time_budget_holds_the_certificate_too() -> None:
    without = ask(certifying=Certifying(90, 1000.0, 0.0))
    assert ask(certifying=Certifying(90, 1000.0, 0.0), time_s=without.seconds / 2).seconds == without.seconds / 2
    assert ask(certifying=Certifying(90, 1000.0, 0.0), time_s=without.seconds * 2).seconds == without.seconds
    short = without.seconds_per_finalist / 2
    assert ask(certifying=Certifying(90, 1000.0, 0.0), time_s=short).seconds == without.seconds_per_finalist


def test_only_what_the_store_lacks_counts() -> None:
    new, resumed = ask(), ask(have_template=True, have_points=2)
    assert resumed.templates_s < new.templates_s
    assert resumed.disk < new.disk - template_bytes(FACTS) + 1
    done = ask(have_template=True, have_points=3)
    assert done.templates_s == 0
    # The template is what needed most memory here; what is left needs less.
    assert new.hungriest == "the template"
    assert done.memory < new.memory
    converting = ask(base_bytes=1.1e9)
    assert converting.disk == pytest.approx(new.disk + 1.1e9)
    assert converting.templates_s > new.templates_s


def test_artifacts_that_the_front_does_not_keep_take_no_disk() -> None:
    kept = 2 * sum(changed_bytes(FACTS, p) for p in POINTS)
    few, many, more = (ask(adapters=n) for n in (1, 50, 100))
    adapter = (more.disk - many.disk) / 50
    assert adapter < 0.2 * changed_bytes(FACTS, POINTS[0])
    assert many.disk - few.disk < kept + 49 * adapter
    assert changed_bytes(FACTS, POINTS[0]) == pytest.approx(100e6 * 2)


def test_an_untied_head_belongs_to_the_point_not_to_the_adapter() -> None:
    untied = replace(FACTS, tied=False, parameters=436_000_000)
    assert changed_bytes(untied, POINTS[0]) == changed_bytes(FACTS, POINTS[0])
    assert template_bytes(untied) > 1.8 * template_bytes(FACTS)


def test_long_batches_need_memory_and_a_quantized_base_needs_less() -> None:
    big = replace(FACTS, parameters=4_000_000_000, hidden=3072, layers=32)
    rows = replace(DATA, train=(replace(ROW, prompt=tuple(range(1000))),))

    def training(precision: str, batch_size: int) -> float:
        found = estimate(
            big, rows, (DeployParams("int4"),), adapters=1, trials=None, epochs=1.0, steps=None, batch_size=batch_size,
            gflops=150.0, prompt_tokens=64, new_tokens=8, samples=20, free_disk=1e12, free_memory=1e12,
            base_precision=precision, have_template=True, have_points=1,
        )  # fmt: skip
        assert found.hungriest == "training"
        return found.memory

    assert training("fp32", 16) > training("fp32", 8) > training("bf16", 8) > training("int8", 8) > training("nf4", 8)
    assert training("fp32", 8) > 16e9


def test_slow_rounding_costs_more() -> None:
    def seconds(algorithm: str) -> Estimate:
        return estimate(
            FACTS, DATA, (DeployParams("int4", algorithm=algorithm),), adapters=2, trials=None, epochs=1.0, steps=None,
            batch_size=8, gflops=150.0, prompt_tokens=64, new_tokens=8, samples=20, free_disk=80e9, free_memory=20e9,
        )  # fmt: skip

    assert seconds("k_quant").seconds_per_trial > seconds("default").seconds_per_trial
    assert seconds("k_quant").templates_s > seconds("default").templates_s


def test_every_device_is_screened_and_certified_on() -> None:
    one = ask(certifying=Certifying(90, 1000.0, 0.0))
    three = ask(certifying=Certifying(90, 1000.0, 0.0), devices_in_sequence=3.0)
    assert three.seconds_per_finalist == pytest.approx(3 * one.seconds_per_finalist)
    assert three.templates_s > one.templates_s
    assert three.seconds_per_adapter == one.seconds_per_adapter
    assert three.seconds - one.seconds == pytest.approx(
        2 * one.seconds_per_finalist + three.templates_s - one.templates_s)
