"""Ways through the trie of labels on ONNX Runtime GenAI: a prompt alone, after a common beginning, in a batch.

Each asks ``pick(row, node, logits)`` at every node for the token to go on with; None leaves the row there. A walk's
result is the label's index, or None for a row that was left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from objectives.accuracy import Node, depth, last_logits
from objectives.agreement import Logits
from objectives.session import ids_array, new_generator

Pick = Callable[[int, Node, Logits], int | None]

#: The logit of a token that must not be taken when the next one is dictated.
_NEVER = np.float32(-1e9)


def walk_alone(model: Any, row: int, prompt: Sequence[int], trie: Node, pick: Pick, min_length: int) -> int | None:
    """What `objectives.accuracy.choose` does, with ``pick`` in place of the largest allowed logit."""
    generator = new_generator(model, max(len(prompt) + depth(trie), min_length))
    generator.append_tokens(ids_array(prompt))
    return _descend(generator, row, trie, pick)


class Rewinder:
    """One generator that holds what all prompts begin with and goes back to it for each of them.

    Raises RuntimeError, also when walking, where the runtime cannot go back for this model.
    """

    def __init__(self, model: Any, prefix: Sequence[int], max_length: int) -> None:
        self._prefix = len(prefix)
        self._generator = new_generator(model, max_length)
        self._generator.append_tokens(ids_array(prefix))

    def walk(self, row: int, prompt: Sequence[int], trie: Node, pick: Pick) -> int | None:
        self._generator.rewind_to(self._prefix)
        self._generator.append_tokens(ids_array(prompt[self._prefix :]))
        return _descend(self._generator, row, trie, pick)


def _descend(generator: Any, row: int, node: Node, pick: Pick) -> int | None:
    while node.label is None:
        token = pick(row, node, last_logits(generator))
        if token is None:
            return None
        node = node.children[token]
        if node.label is None:
            generator.append_tokens(ids_array([token]))
    return node.label


def walk_batch(
    model: Any, rows: Sequence[int], prompts: Sequence[Sequence[int]], trie: Node, pick: Pick, min_length: int
) -> list[int | None]:
    """Prompts of one length together. Raises RuntimeError where the runtime refuses batches."""
    size = len(rows)
    generator = _batch_generator(model, max(len(prompts[0]) + depth(trie), min_length), size)
    generator.append_tokens(np.asarray(prompts, dtype=np.int32))
    nodes: list[Node | None] = [trie] * size
    while True:
        raw = generator.get_logits()
        logits = raw.reshape(size, -1, raw.shape[-1])[:, -1]
        # Rows that are done, or left, go on with a token that nobody looks at.
        tokens = [prompt[-1] for prompt in prompts]
        going = False
        for i, node in enumerate(nodes):
            if node is None or node.label is not None:
                continue
            token = pick(rows[i], node, logits[i])
            after = nodes[i] = None if token is None else node.children[token]
            if token is not None and after is not None and after.label is None:
                tokens[i], going = token, True
        if not going:
            return [None if node is None else node.label for node in nodes]
        _dictate(generator, tokens, raw.shape[-1])


def _dictate(generator: Any, tokens: Sequence[int], vocabulary: int) -> None:
    """Append one token to each row. A batch takes no second ``append_tokens``, so the search is shown logits
    that leave it no choice."""
    logits = np.full((len(tokens), 1, vocabulary), _NEVER, dtype=np.float32)
    logits[np.arange(len(tokens)), 0, list(tokens)] = 0
    generator.set_logits(logits)
    generator.generate_next_token()
    if list(generator.get_next_tokens()) != list(tokens):
        raise RuntimeError("the runtime took other tokens than it was told to")


def _batch_generator(model: Any, max_length: int, size: int) -> Any:
    import onnxruntime_genai as og  # loaded long since, with its upload threads off, by `objectives.session`

    params = og.GeneratorParams(model)
    params.set_search_options(max_length=max_length, do_sample=False, batch_size=size)
    return og.Generator(model, params)


def head_shape(model: Any, prompt: Sequence[int], min_length: int) -> tuple[int, bool]:
    """The vocabulary's size, and whether the model computes logits for every token of a prompt."""
    prompt = prompt if len(prompt) > 1 else [*prompt, *prompt]
    generator = new_generator(model, max(len(prompt), min_length))
    generator.append_tokens(ids_array(prompt))
    logits = generator.get_output("logits")
    return int(logits.shape[-1]), bool(logits.shape[1] > 1)
