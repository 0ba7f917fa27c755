"""Answers of the artifact: a label chosen by greedy decoding through a trie, or free greedy generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from objectives.session import ids_array, new_generator


@dataclass(frozen=True)
class Node:
    """A place in the trie: the tokens allowed next, and the label when a single one is left."""

    label: int | None
    children: dict[int, Node]


def build_trie(labels: Sequence[Sequence[int]], eos_id: int) -> Node:
    """The trie of the labels' token ids, each followed by ``eos_id``, so that a label may be the
    beginning of another. ``Node.label`` is the index into ``labels``.

    Raises ValueError for an empty label, two equal ones, or one that holds ``eos_id`` itself.
    """
    if not labels:
        raise ValueError("no labels")
    seen: dict[tuple[int, ...], int] = {}
    for i, label in enumerate(labels):
        if not label:
            raise ValueError(f"label {i} is empty")
        if eos_id in label:
            raise ValueError(f"label {i} holds the terminator {eos_id}")
        if (first := seen.setdefault(tuple(label), i)) != i:
            raise ValueError(f"labels {first} and {i} have the same token ids")
    return _node([(i, (*label, eos_id)) for i, label in enumerate(labels)])


def _node(paths: Sequence[tuple[int, tuple[int, ...]]]) -> Node:
    if len(paths) == 1:
        return Node(paths[0][0], {})
    heads = sorted({path[0] for _, path in paths})
    return Node(None, {h: _node([(i, path[1:]) for i, path in paths if path[0] == h]) for h in heads})


def depth(node: Node) -> int:
    """The most tokens that choosing a label can append to a prompt."""
    return 1 + max(map(depth, node.children.values())) if node.children else 0


def choose(model: Any, prompt: Sequence[int], trie: Node, min_generator_length: int = 0) -> int:
    """The label that greedy decoding restricted to the trie ends in: at each node the allowed token with
    the largest logit (the smallest id among equals), stopping once one label is left.

    Raises FloatingPointError when an allowed logit is not a number.
    """
    if trie.label is not None:
        return trie.label
    generator = new_generator(model, max(len(prompt) + depth(trie), min_generator_length))
    generator.append_tokens(ids_array(prompt))
    node = trie
    while True:
        token = greedy(node, last_logits(generator))
        node = node.children[token]
        if node.label is not None:
            return node.label
        generator.append_tokens(ids_array([token]))


def greedy(node: Node, logits: np.ndarray[Any, np.dtype[np.float32]]) -> int:
    """The allowed token with the largest of ``logits`` [vocabulary], the smallest id among equals.

    Raises FloatingPointError when an allowed logit is not a number.
    """
    allowed = list(node.children)
    values = logits[allowed]
    if np.isnan(values).any():
        raise FloatingPointError("the model's logits are not numbers (NaN)")
    return allowed[int(values.argmax())]


def last_logits(generator: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Next-token logits [vocabulary] after everything appended so far."""
    logits: np.ndarray[Any, np.dtype[np.float32]] = generator.get_logits()
    last: np.ndarray[Any, np.dtype[np.float32]] = logits.reshape(-1, logits.shape[-1])[-1]
    return last


@dataclass(frozen=True)
class Generation:
    """A generated answer: ``ids`` without the end-of-sequence token, ``text`` cut before a stop string."""

    ids: tuple[int, ...]
    text: str


def generate(
    model: Any, tokenizer: Any, prompt: Sequence[int], max_new_tokens: int, *,
    stop_ids: frozenset[int], stop_strings: Sequence[str], min_generator_length: int = 0,
) -> Generation:
    """Greedy generation until ``max_new_tokens``, one of ``stop_ids``, one of the artifact's own
    end-of-sequence tokens, or a stop string in the text as the artifact's tokenizer decodes it.

    The text is what the device's user would read: that tokenizer drops whatever follows bytes that are no
    UTF-8. Raises FloatingPointError when the logits after the prompt are not numbers.
    """
    generator = new_generator(model, max(len(prompt) + max_new_tokens, min_generator_length))
    generator.append_tokens(ids_array(prompt))
    if np.isnan(last_logits(generator)).any():
        raise FloatingPointError("the model's logits are not numbers (NaN)")
    stops = stop_ids.union(int(i) for i in tokenizer.eos_token_ids)
    ids: list[int] = []
    while len(ids) < max_new_tokens and not generator.is_done():
        generator.generate_next_token()
        token = int(generator.get_next_tokens()[0])
        if token in stops:
            break
        ids.append(token)
        if stop_strings and _first_stop(tokenizer.decode(ids_array(ids)), stop_strings) is not None:
            break
    text = str(tokenizer.decode(ids_array(ids))) if ids else ""
    return Generation(tuple(ids), text[: _first_stop(text, stop_strings)])


def _first_stop(text: str, stop_strings: Sequence[str]) -> int | None:
    found = [at for s in stop_strings if (at := text.find(s)) >= 0]
    return min(found) if found else None
