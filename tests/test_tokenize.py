"""Rows become ids with the model's own tokenizer, and what cannot be trained on is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from autotune.errors import BaseModelError, DataError
from autotune.pipeline.data import Row
from autotune.pipeline.tokenize import load_data, tokenize
from autotune.pipeline.tokens import TokenizedData
from tests import tiny

EOS, BOS = 1, 2
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TONES = ["joy", "fear", "joyful"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that puts <bos> before a text, as Llama's and Gemma's do."""
    folder = tmp_path_factory.mktemp("plain")
    tokenizer = tiny.tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", BOS)]
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>", "<|end|>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def rows(*pairs: tuple[str, str], name: str = "train") -> list[Row]:
    return [Row({"text": t, "tone": a}, f"{name}.jsonl", line) for line, (t, a) in enumerate(pairs, 1)]


GOOD = {
    "train": rows(("the lazy dog", "joy"), ("nobody came", "fear")),
    "valid": rows(("what a morning", "joyful")),
    "test": rows(("wait", "fear")),
}


def run(model: Path, splits: dict[str, list[Row]] | None = None, **changes: Any) -> TokenizedData:
    arguments: dict[str, Any] = {
        "prompt": "### Text: {text}\n### The tone is:\n", "answer": "{tone}", "chat": False, "task": "choice",
        "labels": TONES, "max_tokens": 200, **changes,
    }  # fmt: skip
    return tokenize(model, splits or GOOD, **arguments)


def test_prompt_has_bos_and_answer_has_eos(model: Path) -> None:
    data = run(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    example = data.train[0]
    assert example.prompt_text == "### Text: the lazy dog\n### The tone is:\n"
    assert list(example.prompt) == tokenizer(example.prompt_text).input_ids
    assert example.prompt[0] == BOS
    assert EOS not in example.prompt
    assert example.answer[-1] == EOS == data.eos_id
    assert BOS not in example.answer
    assert tokenizer.decode(example.answer[:-1]) == "joy" == example.answer_text
    assert [len(part) for part in (data.train, data.valid, data.test)] == [2, 1, 1]


def test_labels_have_the_ids_of_the_answers(model: Path) -> None:
    data = run(model)
    assert data.labels == tuple(TONES)
    assert (*data.label_ids[1], EOS) == data.train[1].answer
    assert run(model, labels=None, splits={"train": GOOD["train"]}).labels == ("fear", "joy")


def test_generate_has_no_labels(model: Path) -> None:
    data = run(model, task="generate", labels=None)
    assert data.labels == ()
    assert data.label_ids == ()


def test_survives_a_file(model: Path, tmp_path: Path) -> None:
    data = run(model)
    data.save(tmp_path / "data.json")
    assert TokenizedData.load(tmp_path / "data.json") == data


def test_a_tokenizer_that_closes_texts_with_eos(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", BOS), ("<eos>", EOS)]
    )
    tokenizer.save_pretrained(tmp_path)
    example = run(tmp_path).train[0]
    assert EOS not in example.prompt
    assert example.answer.count(EOS) == 1


def test_bad_rows_are_told_together(model: Path) -> None:
    splits = {
        "train": rows(("fine", "joy"), ("long " * 300, "joy"), ("fine", "joi"), ("fine", "a <eos> b")),
        "valid": rows(("fine", "fear"), ("fine", "anger"), name="valid"),
    }
    with pytest.raises(DataError) as caught:
        run(model, splits)
    found = {(p.file, p.where): p for p in caught.value.problems}
    assert set(found) == {("train.jsonl", f"line {n}") for n in (2, 3, 4)} | {("valid.jsonl", "line 2")}
    assert "did you mean 'joy'" in found["train.jsonl", "line 3"].found
    assert found["train.jsonl", "line 2"].accepted == "at most 200 tokens"
    with pytest.raises(DataError, match="line 4: the end-of-sequence token inside the answer"):
        run(model, splits | {"train": rows(*[("a", "b")] * 3, ("fine", "a <eos> b"))}, task="generate")


def test_over_long_counts_prompt_answer_and_eos(model: Path) -> None:
    example = run(model).train[0]
    length = len(example.prompt) + len(example.answer)
    assert len(run(model, max_tokens=length, splits={"train": GOOD["train"][:1]}, labels=TONES).train) == 1
    with pytest.raises(DataError) as caught:
        run(model, max_tokens=length - 1, splits={"train": GOOD["train"][:1]})
    expected = f"{length} tokens (prompt {len(example.prompt)}, answer {len(example.answer)})"
    assert caught.value.problems[0].found == expected


def test_labels_that_the_tokenizer_cannot_tell_apart(tmp_path: Path) -> None:
    inner = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1, "joy": 2, "fear": 3, "t": 4}, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", unk_token="<unk>").save_pretrained(tmp_path)
    with pytest.raises(DataError, match="'joy' and 'Joy' have the same tokens"):
        run(tmp_path, {"train": rows(("t", "joy"))}, labels=["joy", "Joy", "fear"])


def test_chat_uses_the_template_and_its_end_of_turn(chat_model: Path) -> None:
    data = run(chat_model, prompt="{text}", chat=True)
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    example = data.train[0]
    assert example.prompt_text == "the lazy dog"
    assert tokenizer.decode(example.prompt) == "<bos><|user|>\nthe lazy dog<|end|>\n<|assistant|>\n"
    assert example.prompt.count(BOS) == 1
    message = [{"role": "user", "content": "the lazy dog"}]
    official = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    assert list(example.prompt) == official
    assert data.eos_id == example.answer[-1] == end != tokenizer.eos_token_id


def test_chat_without_end_of_turn_falls_back_to_eos(chat_model: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    assert run(tmp_path, chat=True).eos_id == EOS


def test_chat_needs_a_template_that_works(model: Path, chat_model: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"no chat template; accepted: chat: false"):
        run(model, chat=True)
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    tokenizer.chat_template = "{{ raise_exception('no user may speak') }}"
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match="chat_template: no user may speak"):
        run(tmp_path, chat=True)


def test_eos_from_the_generation_config(model: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match="eos_token"):
        run(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    assert run(tmp_path).eos_id == 5


def test_damaged_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BaseModelError, match="tokenizer files that transformers can load"):
        run(tmp_path)


def write(folder: Path, name: str, pairs: list[tuple[str, str]]) -> str:
    lines = [json.dumps({"text": text, "tone": tone}) + "\n" for text, tone in pairs]
    (folder / name).write_text("".join(lines))
    return name


def load(model: Path, base_dir: Path, **changes: Any) -> tuple[TokenizedData, list[str]]:
    arguments: dict[str, Any] = {
        "train": "train.jsonl", "valid": None, "test": None, "prompt": "{text}", "answer": "{tone}",
        "chat": False, "task": "choice", "labels": None, "max_tokens": 100, **changes,
    }  # fmt: skip
    return load_data(model, base_dir=base_dir, **arguments)


PAIRS = [(f"text {i}", TONES[i % 3]) for i in range(100)]


def test_load_cuts_missing_splits(model: Path, tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", PAIRS)
    steps: list[float] = []
    data, warnings = load(model, tmp_path, report=lambda done, total, note="": steps.append(done / total))
    assert warnings == []
    assert len(data.train) + len(data.valid) + len(data.test) == 100
    assert min(len(data.valid), len(data.test)) >= 5
    assert steps[-1] == 1.0


def test_load_warns_of_duplicates_and_unused_labels(model: Path, tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", PAIRS)
    write(tmp_path, "test.jsonl", [("other", "joy"), ("text 7", "fear")])
    data, warnings = load(model, tmp_path, test="test.jsonl", labels=[*TONES, "sadness"])
    assert warnings == [
        "train.jsonl line 8 (train) has the prompt of test.jsonl line 2 (test)",
        "no training row has the label 'sadness'",
    ]
    assert len(data.test) == 2
    assert len(data.train) + len(data.valid) == 100


def test_load_tells_the_problems_of_all_files_together(model: Path, tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", [("a", "joy"), ("", "joy")])
    (tmp_path / "valid.csv").write_text("text,tone\na,\n")
    with pytest.raises(DataError) as caught:
        load(model, tmp_path, valid="valid.csv", test="missing.json")
    assert [(p.file, p.where) for p in caught.value.problems] == [
        ("train.jsonl", "line 2"), ("valid.csv", "line 2"), ("missing.json", ""),
    ]  # fmt: skip


def test_load_broken_templates(model: Path, tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", PAIRS)
    with pytest.raises(DataError, match=r"data.prompt: a single '\{'.*; accepted: \{column\} fields"):
        load(model, tmp_path, prompt="{text} {")
    with pytest.raises(DataError, match=r"data.answer: no \{column\} field"):
        load(model, tmp_path, answer="joy")
    with pytest.raises(DataError, match=r"no column 'texts', did you mean 'text'\?"):
        load(model, tmp_path, prompt="{texts}")


def test_a_prompt_of_several_columns_may_leave_some_blank(model: Path, tmp_path: Path) -> None:
    lines = [{"a": "x", "b": "", "tone": "joy"}, {"a": "", "b": "y", "tone": "fear"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines * 40)))
    # Two different prompts only: give the other splits, so that none need be cut.
    files = {"valid": "train.jsonl", "test": "train.jsonl"}
    assert len(load(model, tmp_path, prompt="{a} {b}", **files)[0].train) == 80
    (tmp_path / "train.jsonl").write_text(json.dumps({"a": " ", "b": "", "tone": "joy"}))
    with pytest.raises(DataError, match="line 1: a, b all empty"):
        load(model, tmp_path, prompt="{a} {b}", **files)
