from __future__ import annotations

from pathlib import Path

import pytest

from objectives.base import OBJECTIVES, parse_key
from objectives.latency import VALUES
from objectives.size import size_mb


@pytest.mark.parametrize(
    ("key", "name", "statistic"),
    [
        ("latency_ms", "latency_ms", "p50"),
        ("latency_ms.p95", "latency_ms", "p95"),
        ("ttft_ms.mean", "ttft_ms", "mean"),
        ("tokens_per_s.p05", "tokens_per_s", "p05"),
        ("accuracy", "accuracy", None),
        ("size_mb", "size_mb", None),
    ],
)
def test_a_key_names_an_objective_and_its_statistic(key: str, name: str, statistic: str | None) -> None:
    assert parse_key(key) == (OBJECTIVES[name], statistic)


def test_a_mistyped_objective_is_answered_with_the_nearest_and_all_names() -> None:
    with pytest.raises(ValueError, match="unknown objective 'latencyms', did you mean 'latency_ms'") as caught:
        parse_key("latencyms.p95")
    assert all(name in str(caught.value) for name in OBJECTIVES)


@pytest.mark.parametrize("key", ["latency_ms.p42", "latency_ms.", "latency_ms.p95.p95"])
def test_an_unknown_statistic_is_answered_with_the_known_ones(key: str) -> None:
    with pytest.raises(ValueError, match=r"has no statistic .*; accepted: .*latency_ms\.p95"):
        parse_key(key)


def test_what_has_one_value_a_run_takes_no_statistic() -> None:
    with pytest.raises(ValueError, match="'size_mb' takes no statistic"):
        parse_key("size_mb.p95")


def test_every_timed_objective_has_a_formula() -> None:
    assert set(VALUES) == {o.name for o in OBJECTIVES.values() if o.source == "latency"}


def test_size_counts_every_file_in_megabytes_of_a_million_bytes(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "model.onnx.data").write_bytes(bytes(1_500_000))
    (tmp_path / "sub" / "tokenizer.json").write_bytes(bytes(500_000))
    assert size_mb(tmp_path) == 2.0
    with pytest.raises(FileNotFoundError, match="no artifact folder"):
        size_mb(tmp_path / "nowhere")
