from __future__ import annotations

from typing import Any

import pytest

from objectives import session
from objectives.latency import LatencySample, time_request, values
from tests import artifacts


@pytest.fixture(scope="module")
def ending() -> Any:
    return session.open_model(artifacts.artifact_that_ends_at_once(), "cpu", {}, 1)


@pytest.mark.parametrize("new_tokens", [1, 2, 7])
@pytest.mark.parametrize("min_generator_length", [0, 600])
def test_with_eos_ignored_there_are_exactly_as_many_tokens(
    ending: Any, new_tokens: int, min_generator_length: int
) -> None:
    sample = time_request(
        ending, [5, 6, 7], new_tokens, ignore_eos=True, min_generator_length=min_generator_length
    )
    assert (sample.prompt_tokens, sample.new_tokens) == (3, new_tokens)
    assert len(sample.token_ms) == new_tokens - 1


def test_with_eos_the_answer_ends_where_the_model_ends_it(ending: Any) -> None:
    sample = time_request(ending, [5, 6, 7], 7, ignore_eos=False)
    assert (sample.new_tokens, sample.token_ms) == (1, ())


def test_a_stop_id_ends_a_request_only_when_eos_counts() -> None:
    model = session.open_model(artifacts.artifact(), "cpu", {}, 1)
    first = int(artifacts.next_logits([5, 6, 7]).argmax())
    stopped = time_request(model, [5, 6, 7], 6, ignore_eos=False, stop_ids=frozenset({first}))
    ignored = time_request(model, [5, 6, 7], 6, ignore_eos=True, stop_ids=frozenset({first}))
    assert (stopped.new_tokens, ignored.new_tokens) == (1, 6)


def test_the_parts_of_a_request_add_up_to_the_whole(ending: Any) -> None:
    sample = time_request(ending, [5, 6, 7], 5, ignore_eos=True)
    assert sample.ttft_ms > 0
    assert all(t > 0 for t in sample.token_ms)
    assert sample.latency_ms == pytest.approx(sample.ttft_ms + sum(sample.token_ms))


def test_values_of_a_request() -> None:
    sample = LatencySample(prompt_tokens=9, new_tokens=5, ttft_ms=20.0, token_ms=(10.0,) * 4, latency_ms=60.0)
    assert values("ttft_ms", [sample]) == [20.0]
    assert values("tpot_ms", [sample]) == [10.0]
    assert values("latency_ms", [sample]) == [60.0]
    assert values("tokens_per_s", [sample]) == [pytest.approx(5 / 0.060)]


def test_a_single_token_has_no_time_per_further_token() -> None:
    one = LatencySample(prompt_tokens=9, new_tokens=1, ttft_ms=20.0, token_ms=(), latency_ms=20.0)
    assert values("tpot_ms", [one]) == []
