"""What each execution provider can do, and what the answer says when it cannot."""

from __future__ import annotations

import itertools

import pytest

from search_spaces.deploy import (
    ALGORITHMS,
    BLOCK_SIZES,
    INT8_WHERE,
    PRECISIONS,
    PROVIDERS,
    QUANTIZED,
    DeployParams,
    highest_precision,
    unsupported,
)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_cpu_has_every_precision_a_cpu_user_means(precision):
    assert unsupported(DeployParams(precision), "cpu") is None


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != "fp32"])
def test_cuda_has_every_precision_that_its_attention_computes_in(precision):
    assert unsupported(DeployParams(precision), "cuda") is None


def test_an_export_is_checked_at_the_highest_precision_that_a_session_opens():
    assert "cannot run fp32" in unsupported(DeployParams("fp32"), "cuda")
    assert [highest_precision(p) for p in ("cpu", "cuda", "dml", "npu")] == [
        DeployParams("fp32"), DeployParams("fp16"), DeployParams("fp16"), None]


@pytest.mark.parametrize(
    ("params", "provider", "words"),
    [
        (DeployParams("bf16"), "cpu", ("CPU", "bf16", "fp32, fp16, int8, int4")),
        (DeployParams("int8"), "dml", ("DirectML", "int8", "fp16, int4")),
        (DeployParams("fp32"), "dml", ("DirectML", "fp32")),
        (DeployParams("int4", int8_where="head"), "dml", ("DirectML", "int8_where head", "none")),
        (DeployParams("int4", accuracy_level=2), "cpu", ("accuracy_level 2", "0, 1, 4")),
        (DeployParams("int4", accuracy_level=1), "cuda", ("CUDA", "accuracy_level 1")),
        (DeployParams("int4", block_size=24), "cpu", ("block_size 24", "16, 32")),
        (DeployParams("int8", int8_where="head"), "cpu", ("int8_where head", "int8")),
        (DeployParams("fp32", block_size=64), "cpu", ("block_size 64", "fp32")),
        (DeployParams("fp16", symmetric=False), "cuda", ("symmetric False", "fp16")),
        (DeployParams("int4", algorithm="k_quant", symmetric=False), "cpu", ("k_quant", "zero points")),
        (DeployParams("fp32"), "coreml", ("coreml", "cpu, cuda, dml")),
    ],
)
def test_refusal_is_one_sentence_naming_what_was_found_and_what_is_accepted(params, provider, words):
    reason = unsupported(params, provider)
    assert reason is not None
    assert all(word in reason for word in words), reason
    assert "\n" not in reason
    assert reason.endswith(".")


def test_supported_points_have_distinct_labels():
    """Two points with one label would overwrite each other's artifact."""
    both = (True, False)
    for provider in PROVIDERS:
        points = [
            DeployParams(precision, algorithm, block, symmetric, where, level, prune, share)
            for precision, algorithm, block, symmetric, where, level, prune, share in itertools.product(
                QUANTIZED, ALGORITHMS, BLOCK_SIZES, both, INT8_WHERE, (0, 1, 4), both, both
            )
        ] + [DeployParams(p) for p in PRECISIONS if p not in QUANTIZED]
        labels = [p.label for p in points if unsupported(p, provider) is None]
        assert len(labels) == len(set(labels)) > 50
