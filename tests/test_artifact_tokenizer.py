"""The artifact's own tokenizer gives the ids of training, is mended, or the model is refused."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime_genai as og
import pytest
import transformers
from tokenizers import processors

from autotune.errors import AssemblyError
from autotune.pipeline.artifact_tokenizer import check_tokenizer
from autotune.pipeline.tokens import Example
from objectives.texts import MEND_FILE, prepend_ids
from search_spaces.deploy import DeployParams
from tests import tiny
from tests.running import build

TEXTS = ["### Text: a lovely morning!\n### The tone is:\n", "Is somebody there?", "42 potatoes, naïve 🥔"]
CHAT = "{% for m in messages %}<bos>{{ m['role'] }}: {{ m['content'] }}<eos>{% endfor %}" \
       "{% if add_generation_prompt %}assistant:{% endif %}"


def artifact(tmp_path: Path, change=None) -> tuple[Path, Path]:
    source = tiny.make_model(tmp_path / "source", "llama")
    if change:
        tokenizer = tiny.tokenizer()
        change(tokenizer)
        tokenizer.save_pretrained(source)
    return source, build(source, tmp_path / "artifact", DeployParams("fp32"), "cpu", 128).path


def with_bos(tokenizer) -> None:
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )


def examples(source: Path, texts=TEXTS) -> list[Example]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    return [Example(tuple(tokenizer(text).input_ids), (1,), text, "") for text in texts]


def test_a_plain_tokenizer_needs_no_mending(tmp_path):
    source, folder = artifact(tmp_path)
    check = check_tokenizer(folder, source, examples(source), chat=False, out=folder)
    assert (check.checked, check.differing, check.mended) == (3, 0, None)
    assert not (folder / MEND_FILE).exists()
    assert prepend_ids(folder) == ()


def test_a_missing_bos_is_mended(tmp_path):
    source, folder = artifact(tmp_path, with_bos)
    rows = examples(source)
    assert rows[0].prompt[0] == 2
    check = check_tokenizer(folder, source, rows, chat=False, out=folder)
    assert (check.checked, check.differing) == (3, 3)
    assert check.mended is not None
    assert "[2]" in check.mended
    assert prepend_ids(folder) == (2,)
    tokenizer = og.Tokenizer(str(folder))
    for row in rows:
        assert prepend_ids(folder) + tuple(tokenizer.encode(row.prompt_text)) == row.prompt
    stock = og.Tokenizer(str(folder))
    stock.update_options(**json.loads((folder / MEND_FILE).read_text())["update_options"])
    assert all(tuple(stock.encode(row.prompt_text)) == row.prompt for row in rows)


def test_the_mend_is_laid_apart_and_the_artifact_left_alone(tmp_path):
    source, folder = artifact(tmp_path, with_bos)
    out = tmp_path / "apart"
    out.mkdir()
    check_tokenizer(folder, source, examples(source), chat=False, out=out)
    assert [p.name for p in out.iterdir()] == [MEND_FILE]
    assert not (folder / MEND_FILE).exists()
    assert prepend_ids(out) == (2,)


def test_chat_goes_through_the_artifacts_own_template(tmp_path):
    def chatty(tokenizer) -> None:
        tokenizer.chat_template = CHAT

    source, folder = artifact(tmp_path, chatty)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    rows = []
    for text in TEXTS:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        rows.append(Example(tuple(ids), (1,), text, ""))
    assert rows[0].prompt[0] == 2
    assert check_tokenizer(folder, source, rows, chat=True, out=folder).differing == 0
    assert check_tokenizer(folder, source, [], chat=True, out=folder).checked == 0


def test_a_difference_inside_a_row_is_refused_with_text_and_both_lists(tmp_path):
    source, folder = artifact(tmp_path)
    rows = examples(source)
    wrong = Example((*rows[1].prompt[:-1], 7), (1,), rows[1].prompt_text, "")
    with pytest.raises(AssemblyError) as caught:
        check_tokenizer(folder, source, [rows[0], wrong, rows[2]], chat=False, out=folder)
    reason = caught.value.reason
    assert "1 of 3 rows" in reason
    assert "Is somebody there?" in reason
    for ids in (rows[1].prompt, wrong.prompt):
        assert str(list(ids)) in reason
    assert "\n" not in reason
    assert not (folder / MEND_FILE).exists()


def test_a_prefix_that_only_some_rows_lack_is_no_mend(tmp_path):
    source, folder = artifact(tmp_path)
    rows = examples(source)
    odd = Example((2, *rows[0].prompt), (1,), rows[0].prompt_text, "")
    with pytest.raises(AssemblyError, match="1 of 3 rows"):
        check_tokenizer(folder, source, [odd, *rows[1:]], chat=False, out=folder)


def test_a_broken_tokenizer_file_is_named(tmp_path):
    source, folder = artifact(tmp_path)
    rows = examples(source)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(AssemblyError, match="tokenizer cannot encode"):
        check_tokenizer(folder, source, rows, chat=False, out=folder)
