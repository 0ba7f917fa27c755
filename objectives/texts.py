"""From a text to the token ids that an artifact is given: its own tokenizer, and what mends it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Beside genai_config.json: ``{"prepend_ids": [2], "update_options": {…}}``. Whoever encodes a text for
#: the artifact puts ``prepend_ids`` before the tokenizer's ids. ``update_options``, when present, is the
#: other way to the same ids, for ``onnxruntime_genai.Tokenizer.update_options(**…)``: one or the other.
MEND_FILE = "autotune_tokenizer.json"


def encode(tokenizer: Any, artifact: Path, texts: Sequence[str], *, chat: bool) -> list[tuple[int, ...]]:
    """The ids of each text. With ``chat`` it is a user's message, put into the artifact's chat template first."""
    first = prepend_ids(artifact)
    return [first + ids_of(tokenizer, prompt_text(tokenizer, text, chat)) for text in texts]


def prepend_ids(artifact: Path) -> tuple[int, ...]:
    """The ids that go before what the artifact's tokenizer gives; empty when it needs no mending."""
    path = artifact / MEND_FILE
    if not path.is_file():
        return ()
    return tuple(int(i) for i in json.loads(path.read_text(encoding="utf-8"))["prepend_ids"])


def prompt_text(tokenizer: Any, text: str, chat: bool) -> str:
    """What the tokenizer is to encode."""
    if not chat:
        return text
    messages = json.dumps([{"role": "user", "content": text}])
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True))


def ids_of(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(int(i) for i in tokenizer.encode(text))
