"""The tokenizer inside the artifact must give the very ids that training used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime_genai as og

from autotune.errors import AssemblyError
from autotune.pipeline.builder import first_line
from autotune.pipeline.tokens import Example
from objectives.texts import MEND_FILE, ids_of, prompt_text

_SPECIAL = {"add_special_tokens": "true"}


@dataclass(frozen=True)
class TokenizerCheck:
    """Of ``checked`` rows ``differing`` had other ids before mending; ``mended`` says how."""

    checked: int
    differing: int
    mended: str | None


def check_tokenizer(
    artifact: Path, model_name: str, examples: Sequence[Example], chat: bool, out: Path
) -> TokenizerCheck:
    """Encode every example's text with the artifact's own tokenizer and compare with ``Example.prompt``.

    ``chat``: the text is a user's message, to which the artifact's chat template is applied first.
    ONNX Runtime GenAI encodes without special tokens and reads no file that would change this, so
    where the only difference is ids missing in front (Gemma's BOS), they are recorded in
    ``autotune_tokenizer.json`` in the folder ``out``, to be laid into the artifact. ``artifact`` is any
    folder with the tokenizer and genai_config.json; ``model_name`` is for messages.

    Raises AssemblyError naming the first row that still differs, its text and both lists of ids.
    """
    try:
        tokenizer = og.Tokenizer(str(artifact))
        texts = [prompt_text(tokenizer, example.prompt_text, chat) for example in examples]
        found = [ids_of(tokenizer, text) for text in texts]
    except Exception as error:
        raise AssemblyError(
            f"the artifact's tokenizer cannot encode the prompts of {model_name}: {first_line(error)}"
        ) from error
    differing = sum(ids != example.prompt for ids, example in zip(found, examples, strict=True))
    if not differing:
        return TokenizerCheck(len(examples), 0, None)
    prefix = _common_prefix(found, examples)
    if prefix is None:
        raise AssemblyError(_complaint(model_name, found, examples, differing))
    mend: dict[str, object] = {"prepend_ids": list(prefix)}
    mended = f"ids {list(prefix)} go before the tokenizer's own ({MEND_FILE})"
    tokenizer.update_options(**_SPECIAL)
    if all(ids_of(tokenizer, text) == e.prompt for text, e in zip(texts, examples, strict=True)):
        mend["update_options"] = _SPECIAL
        mended += "; with onnxruntime_genai alone: tokenizer.update_options(add_special_tokens='true')"
    _write(out / MEND_FILE, mend)
    return TokenizerCheck(len(examples), differing, mended)


def _common_prefix(found: Sequence[tuple[int, ...]], examples: Sequence[Example]) -> tuple[int, ...] | None:
    """The ids that are missing in front of every row alike, or None when that is not the difference."""
    missing = {
        example.prompt[: len(example.prompt) - len(ids)]
        if len(ids) < len(example.prompt) and example.prompt[len(example.prompt) - len(ids):] == ids
        else None
        for ids, example in zip(found, examples, strict=True)
    }
    return missing.pop() if len(missing) == 1 else None


def _complaint(
    model_name: str, found: Sequence[tuple[int, ...]], examples: Sequence[Example], differing: int
) -> str:
    row, ids = next((e, ids) for ids, e in zip(found, examples, strict=True) if ids != e.prompt)
    return (
        f"the artifact's tokenizer gives other ids than {model_name} was trained on for {differing} of "
        f"{len(examples)} rows, first for {_short(row.prompt_text)}: found {_short_ids(ids)}, accepted "
        f"{_short_ids(row.prompt)}; ONNX Runtime GenAI cannot ship this tokenizer as it is"
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")


def _short_ids(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:24]))
    return f"[{shown}, … {len(ids)} ids]" if len(ids) > 24 else f"[{shown}]"


def _write(path: Path, content: dict[str, object]) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(content), encoding="utf-8")
    beside.replace(path)
