"""A judged row is right where the artifact's own answer is, and the model is as it was afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime_genai as og
import peft
import pytest
import torch

from autotune.pipeline.assemble import assemble
from autotune.pipeline.batching import evaluate_loss
from autotune.pipeline.judge import _weights_instead, judge
from autotune.pipeline.point import ARTIFACT_FOLDER, make_point
from autotune.pipeline.resident import frozen_base
from autotune.pipeline.rounded_weights import rounded_weights
from autotune.pipeline.roundings import FULL, rounding, roundings
from autotune.pipeline.template import make_template
from autotune.pipeline.template_params import template_params
from autotune.pipeline.tokens import Example, TokenizedData
from autotune.pipeline.train import train_adapter
from objectives.accuracy import Node, build_trie, choose
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams
from tests import studies, tiny
from tests.adapters import load, make_adapter
from tests.running import logits

CONTEXT = 256
LABELS = ("joy", "joyful", "sadness", "fear")
PARAMS = AdapterParams(rank=8, alpha=16, learning_rate=5e-3, steps=12, batch_size=8, targets="attention")

#: Activations in fp32, so that the artifact computes with what is judged and nothing else is rounded.
INT8 = DeployParams("int8", accuracy_level=1)
INT4 = DeployParams("int4", accuracy_level=1)
POINTS = {
    "llama": [DeployParams("fp32"), DeployParams("fp16"), INT8, INT4, replace(INT4, int8_where="mixed_layers"),
              replace(INT4, algorithm="k_quant", int8_where="head", block_size=16)],
    "llama_untied": [INT4, replace(INT4, symmetric=False, share_embedding=False), replace(INT4, algorithm="k_quant")],
    "phi3": [INT8, replace(INT4, symmetric=False, block_size=128)],
    "gemma3": [DeployParams("fp16"), INT4],
}


@dataclass(frozen=True)
class Trained:
    base: Path
    adapter: Path
    rows: tuple[Example, ...]
    trie: Node


def _examples(count: int, seed: int) -> tuple[Example, ...]:
    tok = tiny.tokenizer()
    found = []
    for i, row in enumerate(studies.rows(count, seed)):
        tone = "joyful" if i % 6 == 0 else row["tone"]
        prompt = f"### Text: {row['phrase']}\n### The tone is:\n"
        ids, answer = (tuple(tok(text, add_special_tokens=False)["input_ids"]) for text in (prompt, tone))
        found.append(Example(ids, (*answer, tok.eos_token_id), prompt, tone))
    return tuple(found)


@pytest.fixture(scope="module", params=list(POINTS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Trained]:
    folder = tmp_path_factory.mktemp(request.param)
    base = tiny.make_model(folder / "base", request.param)
    tok = tiny.tokenizer()
    label_ids = tuple(tuple(tok(label, add_special_tokens=False)["input_ids"]) for label in LABELS)
    rows = _examples(40, 1)
    data = TokenizedData("choice", False, tok.eos_token_id, _examples(36, 0), rows, (), LABELS, label_ids)
    train_adapter(base, data, PARAMS, folder / "adapter", seed=3, threads=1)
    return request.param, Trained(base, folder / "adapter", rows, build_trie(label_ids, tok.eos_token_id))


def _answers(artifact: Path, given: Trained) -> list[str]:
    model = og.Model(str(artifact))
    return [LABELS[choose(model, row.prompt, given.trie)] for row in given.rows]


def test_what_is_judged_right_the_artifact_answers_right(trained: tuple[str, Trained], tmp_path: Path) -> None:
    name, given = trained
    points = {}
    for i, params in enumerate(POINTS[name]):
        template = tmp_path / f"template-{i}"
        make_template(given.base, template, template_params(params, "cpu", CONTEXT))
        make_point(template, given.base, tmp_path / str(i), params, "cpu", CONTEXT)
        points[params] = tmp_path / str(i)
    with frozen_base(given.base, "fp32", "cpu") as model:
        found = judge(model, given.base, given.adapter, given.rows, given.trie, points)
        assert found.keys() == {FULL, *(rounding(params) for params in points)}
        for params, point in points.items():
            artifact = assemble(point, given.base, given.adapter, tmp_path / f"artifact-{point.name}").path
            answers = _answers(artifact, given)
            judged = found[rounding(params)]
            assert [row.answer_text == text for row, text in zip(given.rows, answers, strict=True)] == [*judged.right]
            assert 0 < sum(judged.right) < len(given.rows)
            with _weights_instead(model, rounded_weights(model, given.base, given.adapter, point, params)):
                mine = _next_logits(model, given.rows[0].prompt)
            theirs = logits(artifact, given.rows[0].prompt)
            assert np.abs(mine - theirs).max() < 1e-5 * np.abs(theirs).max(), params.label


def test_the_model_is_lent_and_given_back_as_it_was(trained: tuple[str, Trained], tmp_path: Path) -> None:
    name, given = trained
    params = POINTS[name][-1]
    make_template(given.base, tmp_path / "template", template_params(params, "cpu", CONTEXT))
    make_point(tmp_path / "template", given.base, tmp_path / "point", params, "cpu", CONTEXT)
    with frozen_base(given.base, "fp32", "cpu") as model:
        before = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
        first = judge(model, given.base, given.adapter, given.rows, given.trie, {params: tmp_path / "point"})
        after = model.state_dict(keep_vars=True)
        assert all(after[name] is tensor and torch.equal(tensor, copy) for name, (tensor, copy) in before.items())
        (tmp_path / "point" / ARTIFACT_FOLDER / "model.onnx").unlink()
        with pytest.raises(FileNotFoundError):
            judge(model, given.base, given.adapter, given.rows, given.trie, {INT4: tmp_path / "point"})
        assert judge(model, given.base, given.adapter, given.rows, given.trie) == {FULL: first[FULL]}
        assert judge(model, given.base, given.adapter, given.rows, given.trie, {}, full=False) == {}
    with frozen_base(given.base, "fp32", "cpu") as again:
        assert again is model  # a model that something was left in is loaded anew


def test_losses_at_full_precision_are_those_of_peft(trained: tuple[str, Trained]) -> None:
    _, given = trained
    with frozen_base(given.base, "fp32", "cpu") as model:
        judged = judge(model, given.base, given.adapter, given.rows, None)[FULL]
    adapted = peft.PeftModel.from_pretrained(load(given.base), str(given.adapter))
    assert judged.loss == pytest.approx(evaluate_loss(adapted.base_model.model, given.rows), rel=1e-5)
    assert [n for _, n in judged.losses] == [len(row.answer) for row in given.rows]
    assert judged.right == ()


def test_logits_that_are_no_numbers_answer_nothing(tmp_path: Path) -> None:
    base = tiny.make_model(tmp_path / "base")
    tok = tiny.tokenizer()
    trie = build_trie([tuple(tok(label, add_special_tokens=False)["input_ids"]) for label in LABELS], tok.eos_token_id)
    make_adapter(base, tmp_path / "adapter")
    with frozen_base(base, "fp32", "cpu") as model:
        model.model.norm.weight[:] = float("nan")
        assert not any(judge(model, base, tmp_path / "adapter", _examples(8, 1), trie)[FULL].right)


def test_points_that_round_alike_are_one_and_full_precision_is_none() -> None:
    other = replace(INT4, accuracy_level=4, prune_head=False)
    full = [DeployParams("fp32"), DeployParams("fp32", prune_head=False), DeployParams("fp16")]
    points = [INT4, other, *full, replace(INT4, block_size=64)]
    found = roundings(points)
    assert list(found.values()) == [INT4, replace(INT4, block_size=64)]
    assert rounding(other) == rounding(INT4)


def _next_logits(model: torch.nn.Module, prompt: Sequence[int]) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([prompt])).logits[0, -1].numpy()
