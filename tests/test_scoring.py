from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from objectives import scoring, session
from objectives.accuracy import Node, build_trie, choose
from objectives.agreement import difference, lead
from objectives.scoring import Scorer
from search_spaces.deploy import DeployParams
from tests import artifacts, tiny
from tests.running import build

EOS = 1
WAYS = ("batch", "rewind")
#: Labels that share first tokens, one the beginning of another, over three levels.
DEEP = [[50], [50, 51], [50, 51, 52], [50, 53], [60, 61], [60, 62, 63], [60, 62, 64], [70]]
FLAT = [[50], [60], [70], [80]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scoring")


_built: dict[tuple[Path, str, DeployParams], Any] = {}


def model(folder: Path, architecture: str, params: DeployParams, **changed: Any) -> Any:
    key = (folder, f"{architecture}{changed}", params)
    if key not in _built:
        source = tiny.make_model(folder / f"hf{len(_built)}", architecture, seed=5, **changed)
        out = folder / f"artifact{len(_built)}"
        build(source, out, params, "cpu", 1024)
        _built[key] = session.open_model(out, "cpu", {}, 1)
    return _built[key]


@cache
def prompts(count: int = 150, shared: int = 12, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    """Random prompts of mixed lengths, on both sides of the sliding window of 64, with a common beginning."""
    drawn = np.random.default_rng(seed)
    start = drawn.integers(3, 380, shared)
    ends = [drawn.integers(3, 380, n) for n in drawn.choice([1, 2, 5, 9, 20, 33, 60, 100], count)]
    return tuple(tuple(int(t) for t in (*start, *end)) for end in ends)


def check(model: Any, asked: Any, labels: list[list[int]], way: Any, looks: tuple[int, ...] = ()) -> Scorer:
    """The forced way gives choose's labels, and each row once."""
    trie = build_trie(labels, EOS)
    scorer = Scorer(model, asked, trie, looks=looks, force=way)
    bounds = [0, *looks, len(asked)]
    answers = [a for start, end in itertools.pairwise(bounds) for a in scorer.answer(range(start, end))]
    assert len(answers) == len(asked)
    expected = {row: choose(model, prompt, trie) for row, prompt in enumerate(asked)}
    assert dict(answers) == expected
    assert len(set(expected.values())) > 1  # or nothing was compared
    return scorer


CASES = {
    "llama": ("llama", DeployParams("fp32")),
    "llama int4": ("llama_untied", DeployParams("int4")),
    "llama full head": ("llama", DeployParams("fp32", prune_head=False)),
    "gemma3": ("gemma3", DeployParams("fp32")),
    "gemma3 int8": ("gemma3", DeployParams("int8")),
    "gemma2": ("gemma2", DeployParams("int4", prune_head=False)),
    "qwen3": ("qwen3", DeployParams("fp16")),
    "phi3": ("phi3", DeployParams("int8")),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_the_labels_are_those_of_one_at_a_time(folder: Path, case: str, way: Any) -> None:
    opened = model(folder, *CASES[case])
    for labels in (FLAT, DEEP):
        scorer = check(opened, prompts(), labels, way)
        assert scorer.way == way
        if case == "llama int4" and not any(scorer.trusted.values()):
            continue  # some processors' int4 kernels round a batch otherwise than one prompt: nothing is trusted
        assert scorer.quick > 30
        assert (scorer.batches > 0) == (way == "batch")


def test_many_rows_take_few_generators(folder: Path) -> None:
    scorer = check(model(folder, *CASES["llama"]), prompts(), DEEP, "batch")
    assert scorer.batches <= 24  # 150 rows of eight lengths, sixteen a batch


@pytest.mark.parametrize("way", WAYS)
def test_equal_logits_are_decided_by_the_reference(folder: Path, way: Any) -> None:
    """Two labels whose tokens have the very same output weights: always a tie, which the smaller id wins."""
    scorer = check(_with_ties(folder), prompts(), [[61], [60], [71], [70]], way)
    assert scorer.quick == 0
    assert scorer.left > 50


@pytest.mark.parametrize("way", WAYS)
def test_near_ties_are_decided_by_the_reference(folder: Path, way: Any) -> None:
    """Labels apart by about as much as one rounded activation moves them."""
    opened = _with_ties(folder, apart=0.02, params=DeployParams("int4"))
    scorer = check(opened, prompts(200, seed=3), [[60], [61], [70], [71]], way)
    assert scorer.left > 20


@pytest.mark.parametrize("way", WAYS)
def test_a_length_whose_logits_differ_at_all_is_answered_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    """The last bit of one logit that no label allows is enough; other lengths are still trusted."""
    opened, asked = model(folder, *CASES["llama"]), prompts()
    odd = sorted({len(prompt) for prompt in asked})[3]

    def with_a_difference(real: Any) -> Any:
        def walk(self: Scorer, way: Any, part: Any, pick: Any) -> Any:
            def shifted(row: int, node: Node, logits: Any) -> Any:
                if way != "alone" and len(asked[row]) == odd:
                    logits = logits.copy()
                    logits[7] = np.nextafter(logits[7], np.float32(np.inf))
                return pick(row, node, logits)

            return real(self, way, part, shifted)

        return walk

    monkeypatch.setattr(Scorer, "_walk", with_a_difference(Scorer._walk))
    scorer = check(opened, asked, DEEP, way)
    assert {level for (_, length, _), level in scorer.trusted.items() if length == odd} == {0}
    assert max(scorer.trusted.values()) > 0


@pytest.mark.parametrize("way", WAYS)
def test_what_was_not_seen_to_agree_further_down_is_answered_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    """A way that agrees at the first node and is far off below it never decides anything there."""
    real = Scorer._walk

    def walk(self: Scorer, way: Any, part: Any, pick: Any) -> Any:
        def off(row: int, node: Node, logits: Any) -> Any:
            if way != "alone" and node is not self._trie:
                logits = logits[::-1] * 3
            return pick(row, node, logits)

        return real(self, way, part, off)

    monkeypatch.setattr(Scorer, "_walk", walk)
    scorer = check(model(folder, *CASES["llama"]), prompts(300), DEEP, way)
    assert set(scorer.trusted.values()) <= {0, 1}


def _with_ties(folder: Path, apart: float = 0.0, params: DeployParams | None = None) -> Any:
    out = folder / f"ties{apart}"
    if not out.exists():
        source = tiny.make_model(folder / f"hf_ties{apart}", "llama_untied", seed=5)
        network = AutoModelForCausalLM.from_pretrained(source)
        with torch.no_grad():
            head = network.lm_head.weight
            for a, b in ((60, 61), (70, 71)):
                head[b] = head[a] + apart * torch.randn_like(head[a])
        network.save_pretrained(source)
        build(source, out, params or DeployParams("fp32"), "cpu", 1024)
    return session.open_model(out, "cpu", {}, 1)


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_answered_piece_by_piece(folder: Path, way: Any) -> None:
    opened = model(folder, *CASES["llama"])
    assert check(opened, prompts(), DEEP, way, looks=(40, 100)).way == way


@pytest.mark.parametrize(("seconds", "agrees", "expected"), [(0.2, True, "batch"), (0.95, True, "alone"),
                                                             (0.2, False, "alone"), (3.0, True, "alone")])
def test_a_way_is_taken_only_where_it_is_quicker(
    folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, agrees: bool, expected: str
) -> None:
    asked = prompts(shared=1)  # nothing to go back to
    opened, trie = model(folder, *CASES["llama"]), build_trie(FLAT, EOS)
    real = Scorer._check

    def timed(self: Scorer, *arguments: Any) -> Any:
        found = real(self, *arguments)
        self.checks["batch"][-1] = scoring.Check(1.0, seconds, agrees, 0.0)
        return found

    monkeypatch.setattr(Scorer, "_check", timed)
    scorer = Scorer(opened, asked, trie)
    answers = dict(scorer.answer(range(len(asked))))
    assert scorer.way == expected
    assert answers == {i: choose(opened, p, trie) for i, p in enumerate(asked)}


def test_few_rows_and_rows_without_company_or_beginning_are_asked_alone(folder: Path) -> None:
    opened, trie = model(folder, *CASES["llama"]), build_trie(FLAT, EOS)
    lonely = [tuple(range(5 + i, 5 + 3 * i + 3)) for i in range(60)]
    for asked in (prompts()[:20], lonely):
        scorer = Scorer(opened, asked, trie)
        assert dict(scorer.answer(range(len(asked)))) == {i: choose(opened, p, trie) for i, p in enumerate(asked)}
        assert (scorer.way, dict(scorer.checks)) == ("alone", {})


def test_a_label_that_is_alone_needs_no_model(folder: Path) -> None:
    scorer = Scorer(None, prompts(), build_trie([[50, 51]], EOS))
    assert set(dict(scorer.answer(range(150))).values()) == {0}


@pytest.mark.parametrize("way", WAYS)
def test_a_windowed_cache_keeps_its_labels(folder: Path, way: Any) -> None:
    """A context beyond 8,192 positions gets a cache of the window's size, which cannot be gone back in."""
    source = tiny.make_model(folder / f"hf_window_{way}", "gemma3", seed=5, max_position_embeddings=16384)
    info = build(source, folder / f"window_{way}", DeployParams("fp32"), "cpu", None)
    assert info.min_generator_length > 1
    opened, trie = session.open_model(info.path, "cpu", {}, 1), build_trie(DEEP, EOS)
    scorer = Scorer(opened, prompts(60), trie, info.min_generator_length, force=way)
    expected = {i: choose(opened, p, trie, info.min_generator_length) for i, p in enumerate(prompts(60))}
    assert dict(scorer.answer(range(60))) == expected
    if way == "rewind":
        assert scorer.way == "alone"


def test_a_runtime_that_refuses_costs_nothing_but_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused while trying, or later on: the rows are answered alone."""
    opened = model(folder, *CASES["llama"])
    real = scoring.walk_batch
    for allowed in (0, 6):
        calls = iter(range(1000))

        def refuse(*arguments: Any, allowed: int = allowed, calls: Any = calls) -> Any:
            if next(calls) >= allowed:
                raise RuntimeError("no batches here")
            return real(*arguments)

        monkeypatch.setattr(scoring, "walk_batch", refuse)
        assert check(opened, prompts(), DEEP, "batch").way == "alone"


@pytest.mark.parametrize("way", ["alone", *WAYS])
def test_logits_that_are_no_numbers_are_an_error(folder: Path, way: Any) -> None:
    out = folder / f"nan_{way}"
    source = tiny.make_model(folder / f"hf_nan_{way}", "llama", seed=5)
    network = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        network.model.norm.weight.fill_(float("nan"))
    network.save_pretrained(source)
    opened = session.open_model(artifacts._build(source, out, "fp32"), "cpu", {}, 1)
    with pytest.raises(FloatingPointError, match="not numbers"):
        list(Scorer(opened, prompts(), build_trie(FLAT, EOS), force=way).answer(range(150)))


def test_batches_stay_within_memory(folder: Path) -> None:
    scorer = Scorer(model(folder, *CASES["llama"]), prompts(), build_trie(FLAT, EOS))
    scorer._vocabulary, scorer._full_head = 262_144, True
    assert [scorer._most_rows(length) for length in (30, 100, 400)] == [8, 2, 1]
    scorer._full_head = False
    assert [scorer._most_rows(length) for length in (30, 400, 4096)] == [16, 5, 1]


def test_a_lead_is_none_unless_all_allowed_logits_are_numbers() -> None:
    node = Node(None, {t: Node(t, {}) for t in (1, 3)})
    assert lead(node, np.array([9, 2, 9, 5], np.float32)) == 3
    for odd in (np.nan, np.inf, -np.inf):
        assert lead(node, np.array([9, odd, 9, 5], np.float32)) == 0
    one = Node(None, {1: node})
    assert lead(one, np.array([0, 2], np.float32)) == float("inf")
    assert lead(one, np.array([0, np.nan], np.float32)) == 0


def test_a_difference_is_infinite_where_one_is_no_number() -> None:
    a = np.array([1, np.inf, -np.inf], np.float32)
    assert difference(a, a) == 0
    assert difference(a, np.array([1.5, np.inf, -np.inf], np.float32)) == 0.5
    assert difference(a, np.array([1, 0, -np.inf], np.float32)) == float("inf")
    assert difference(a, np.array([np.nan, np.inf, -np.inf], np.float32)) == float("inf")
