from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from objectives import session
from objectives.accuracy import build_trie, choose, depth, generate
from tests import artifacts, tiny

EOS = artifacts.EOS
PROMPTS = [[5, 6, 7], [40, 41, 42, 43, 44], [300], [9, 100, 200, 17, 60, 61, 62]]


@pytest.fixture(scope="module")
def model() -> Any:
    return session.open_model(artifacts.artifact(), "cpu", {}, 1)


def restricted_greedy(prompt: list[int], labels: list[list[int]]) -> int:
    """The same choice by definition: at every step the likeliest token that some label still allows."""
    paths = [[*label, EOS] for label in labels]
    taken: list[int] = []
    while True:
        left = [i for i, path in enumerate(paths) if path[: len(taken)] == taken]
        if len(left) == 1:
            return left[0]
        allowed = sorted({paths[i][len(taken)] for i in left})
        logits = artifacts.next_logits(prompt + taken)
        taken.append(max(allowed, key=lambda token: float(logits[token])))


def test_choosing_equals_greedy_decoding_restricted_to_the_labels(model: Any) -> None:
    # Random labels over few tokens share beginnings, and many are the beginning of another.
    generator = torch.Generator().manual_seed(0)
    chosen = set()
    for _ in range(12):
        lengths = torch.randint(1, 4, (8,), generator=generator).tolist()
        drawn = {tuple(torch.randint(50, 53, (n,), generator=generator).tolist()) for n in lengths}
        labels = [list(label) for label in sorted(drawn)]
        trie = build_trie(labels, EOS)
        for prompt in PROMPTS:
            label = choose(model, prompt, trie)
            assert label == restricted_greedy(prompt, labels)
            chosen.add(tuple(labels[label]))
    assert len(chosen) > 5  # or the comparison above has compared next to nothing


def test_both_a_label_and_its_continuation_can_be_chosen(model: Any) -> None:
    """Whichever token the model wants after the short label decides, the terminator among them."""
    prompt, short = PROMPTS[0], 50
    logits = artifacts.next_logits([*prompt, short])
    likelier = int(logits.argmax())
    less_likely = next(t for t in range(3, 384) if logits[t] < logits[EOS])
    assert logits[likelier] > logits[EOS]
    assert choose(model, prompt, build_trie([[short], [short, likelier]], EOS)) == 1
    assert choose(model, prompt, build_trie([[short], [short, less_likely]], EOS)) == 0


def test_a_path_without_a_fork_costs_no_token() -> None:
    assert depth(build_trie([[50, 51, 52, 53], [60, 61]], EOS)) == 1
    assert depth(build_trie([[50], [50, 51]], EOS)) == 2
    assert depth(build_trie([[50]], EOS)) == 0


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([], "no labels"),
        ([[50], []], "label 1 is empty"),
        ([[50], [51], [50]], "labels 0 and 2 have the same token ids"),
        ([[50, EOS]], "label 0 holds the terminator"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(labels: list[list[int]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        build_trie(labels, EOS)


def test_generation_equals_hugging_faces_greedy_generation(model: Any) -> None:
    tokenizer = session.tokenizer(model)
    whole = 0
    for prompt in PROMPTS:
        expected = artifacts.torch_model().generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=12,
            do_sample=False, pad_token_id=0,
        )[0, len(prompt):].tolist()
        found = generate(model, tokenizer, prompt, 12, stop_ids=frozenset(), stop_strings=())
        assert list(found.ids) == [t for t in expected if t != EOS]
        text = tiny.tokenizer().decode(found.ids)
        # The artifact's tokenizer gives up at bytes that are no UTF-8, which a random model does produce.
        assert found.text.rstrip("\ufffd") == text.partition("\ufffd")[0]
        whole += "\ufffd" not in text
    assert whole


def test_generation_ends_before_any_stop_id(model: Any) -> None:
    tokenizer = session.tokenizer(model)
    free = generate(model, tokenizer, PROMPTS[0], 12, stop_ids=frozenset(), stop_strings=()).ids
    stop = free[-1]
    found = generate(model, tokenizer, PROMPTS[0], 12, stop_ids=frozenset({stop, 383}), stop_strings=()).ids
    assert found == free[: free.index(stop)]


def test_text_is_cut_before_the_first_stop_string(model: Any) -> None:
    tokenizer = session.tokenizer(model)
    free = generate(model, tokenizer, PROMPTS[1], 12, stop_ids=frozenset(), stop_strings=())
    # A stop string that lies across tokens, and one that comes after it.
    stop = free.text[3:6]
    found = generate(model, tokenizer, PROMPTS[1], 12, stop_ids=frozenset(), stop_strings=("nowhere", stop))
    assert found.text == free.text[: free.text.index(stop)]
    assert len(found.ids) < len(free.ids)
    assert found.ids == free.ids[: len(found.ids)]


def test_a_model_that_ends_at_once_gives_an_empty_answer() -> None:
    ending = session.open_model(artifacts.artifact_that_ends_at_once(), "cpu", {}, 1)
    found = generate(ending, session.tokenizer(ending), [5, 6, 7], 8, stop_ids=frozenset(), stop_strings=())
    assert (found.ids, found.text) == ((), "")


def test_options_for_the_cpu_provider_are_refused() -> None:
    with pytest.raises(ValueError, match="'cpu' takes no options"):
        session.open_model(artifacts.artifact(), "cpu", {"device_id": "0"}, 1)


def test_a_provider_that_is_not_here_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?i)nonsense"):
        session.open_model(artifacts.artifact(), "nonsense", {}, 1)
