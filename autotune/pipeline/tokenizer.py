"""The model's own Hugging Face tokenizer: prompts, answers, and the token that ends an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autotune.errors import BaseModelError, Problem
from autotune.pipeline.silence import silenced

#: Stands for an answer when the chat template is asked what comes after one.
_MARK = "autotune-answer"
Encode = Callable[[Sequence[str]], list[list[int]]]


def load_tokenizer(model_dir: Path) -> Any:
    """The tokenizer of a Hugging Face folder. Raises BaseModelError when transformers cannot load it."""
    from transformers import AutoTokenizer

    try:
        with silenced():
            return AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exception for a damaged tokenizer.json
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        accepted = "tokenizer files that transformers can load"
        raise BaseModelError([Problem(str(model_dir), "tokenizer", first, accepted)]) from error


def encode_bare(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text without special tokens around it."""
    encoded: list[list[int]] = tokenizer(list(texts), add_special_tokens=False).input_ids
    return encoded


def prompt_encoder(tokenizer: Any) -> Encode:
    """Encodes prompts with the special tokens that belong before them."""
    # Some tokenizers close every text with EOS; a prompt that is to be gone on with must not have it.
    probe = tokenizer("a").input_ids
    closes = len(probe) > 1 and tokenizer.eos_token_id is not None and probe[-1] == tokenizer.eos_token_id

    def encode(texts: Sequence[str]) -> list[list[int]]:
        encoded: list[list[int]] = tokenizer(list(texts)).input_ids
        return [ids[:-1] for ids in encoded] if closes else encoded

    return encode


def chat_encoder(tokenizer: Any, model_dir: Path) -> Encode:
    """Encodes user messages in the chat template, up to where the assistant begins.

    Raises BaseModelError when the tokenizer has no chat template, or the template takes no such message.
    """
    if not tokenizer.chat_template:
        accepted = "chat: false, or a model with a chat template (an -it or -instruct one)"
        raise BaseModelError([Problem(str(model_dir), "tokenizer", "no chat template", accepted)])

    def encode(texts: Sequence[str]) -> list[list[int]]:
        conversations = [[{"role": "user", "content": text}] for text in texts]
        rendered = _apply(tokenizer, model_dir, conversations, add_generation_prompt=True)
        # The template writes the special tokens itself; a second BOS would be one that inference never sees.
        return encode_bare(tokenizer, rendered)

    return encode


def _apply(
    tokenizer: Any, model_dir: Path, conversations: list[Any], *, add_generation_prompt: bool
) -> list[str]:
    from jinja2 import TemplateError

    try:
        rendered: list[str] = tokenizer.apply_chat_template(
            conversations, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        accepted = "a chat template that takes one user message"
        raise BaseModelError([Problem(str(model_dir), "chat_template", str(error), accepted)]) from error
    return rendered


def end_of_answer(tokenizer: Any, model_dir: Path, *, chat: bool) -> int:
    """The id that ends an answer: in a chat, the token that the template puts after the assistant's words.

    Raises BaseModelError when the folder names none.
    """
    known = _declared_ends(model_dir)
    if chat:
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
        text = _apply(tokenizer, model_dir, [turns], add_generation_prompt=False)[0]
        after = text.rpartition(_MARK)[2].lstrip()
        ids = tokenizer(after, add_special_tokens=False).input_ids if after and _MARK in text else []
        special = {*known, *tokenizer.all_special_ids}
        special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        if ids and ids[0] in special:
            return int(ids[0])
    if tokenizer.eos_token_id is not None:
        return int(tokenizer.eos_token_id)
    if known:
        return known[0]
    accepted = "a tokenizer with an eos_token, or eos_token_id in generation_config.json"
    raise BaseModelError([Problem(str(model_dir), "eos_token", "none", accepted)])


def _declared_ends(model_dir: Path) -> list[int]:
    """End-of-sequence ids of generation_config.json, or else of config.json."""
    for name in ("generation_config.json", "config.json"):
        try:
            declared = json.loads((model_dir / name).read_text(encoding="utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        ends = declared if isinstance(declared, list) else [declared]
        if found := [end for end in ends if isinstance(end, int)]:
            return found
    return []
