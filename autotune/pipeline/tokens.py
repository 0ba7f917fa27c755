"""Token ids, made once by the Hugging Face tokenizer: what training, accuracy and latency all use."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

Task = Literal["choice", "generate"]


@dataclass(frozen=True)
class Example:
    """One row after its templates.

    ``prompt`` are the ids the model is given; ``answer`` those it is trained to give, end-of-sequence
    included. ``prompt_text`` is the text that must tokenize to ``prompt`` on the device (for chat
    data: the user's message, to which the chat template is applied there).
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    prompt_text: str
    answer_text: str


@dataclass(frozen=True)
class TokenizedData:
    """All splits. ``label_ids[i]`` are the ids of ``labels[i]`` without the end-of-sequence token."""

    task: Task
    chat: bool
    eos_id: int
    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...] = ()
    label_ids: tuple[tuple[int, ...], ...] = ()

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> TokenizedData:
        """What ``save`` wrote. Parsed once for a file that stays as it is; the object may be shared."""
        found = path.stat()
        return _parsed(path.resolve(), found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=2)
def _parsed(path: Path, *_identity: int) -> TokenizedData:
    raw = json.loads(path.read_text(encoding="utf-8"))

    def split(name: str) -> tuple[Example, ...]:
        return tuple(
            Example(tuple(e["prompt"]), tuple(e["answer"]), e["prompt_text"], e["answer_text"])
            for e in raw[name]
        )

    return TokenizedData(
        raw["task"], raw["chat"], raw["eos_id"], split("train"), split("valid"), split("test"),
        tuple(raw["labels"]), tuple(tuple(ids) for ids in raw["label_ids"]),
    )
