"""What versus_olive.py's tuned Olive has of its own: a data component and an evaluator, and the questions they read.

Runs inside Olive's own virtual environment, beside olive_side.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def prepare_questions(job: dict[str, Any]) -> Path:
    """The evaluation prompts and labels as token ids, in a file.

    Done once, not in every trial. The ids are those of the base model's own tokenizer, because the artifact's
    leaves out BOS for some models, which costs them accuracy.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    rows = [json.loads(line) for line in Path(job["valid"]).read_text(encoding="utf-8").splitlines()]
    questions = {
        "prompts": [tokenizer(job["prompt"].format(**row))["input_ids"] for row in rows],
        "answers": [job["labels"].index(job["answer"].format(**row)) for row in rows],
        "labels": [tokenizer(label, add_special_tokens=False)["input_ids"] for label in job["labels"]],
        "eos": tokenizer.eos_token_id,
    }
    path = Path(job["folder"]) / "questions.json"
    path.write_text(json.dumps(questions), encoding="utf-8")
    return path


def register_answer_rows() -> None:
    """Make the data component ``answer_rows`` known to Olive: rows whose prompt has no part in the loss."""
    from datasets import Dataset
    from olive.data.component.dataset import ClassificationDataset
    from olive.data.registry import Registry
    from transformers import AutoTokenizer

    def answer_rows(dataset: Any, model_name: str, prompt: str, answer: str, **rest: Any) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(model_name)
        columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for row in dataset:
            asked, told = (tokenizer(template.format(**row), add_special_tokens=False)["input_ids"]
                           for template in (prompt, answer))
            columns["input_ids"].append(asked + told)
            columns["attention_mask"].append([1] * len(asked + told))
            columns["labels"].append([-100] * len(asked) + told)
        return ClassificationDataset(Dataset.from_dict(columns).with_format("torch"), "labels")

    Registry.register_pre_process("answer_rows")(answer_rows)


def register_evaluator() -> None:
    """Make ``score_artifact`` known to Olive as the evaluator ``LabelAccuracy``."""
    from olive.evaluator.metric_result import MetricResult
    from olive.evaluator.olive_evaluator import OliveEvaluator
    from olive.evaluator.registry import Registry

    class LabelAccuracy(OliveEvaluator):
        def __init__(self, questions: str, threads: int, **rest: Any) -> None:
            super().__init__(**rest)
            self._questions, self._threads = Path(questions), threads

        def evaluate(self, model: Any, metrics: Any, device: Any = None, execution_providers: Any = None) -> Any:
            path = Path(model.model_path)
            accuracy = score_artifact(path if path.is_dir() else path.parent, self._questions, self._threads)
            return MetricResult.model_validate(
                {"accuracy-accuracy_score": {"value": accuracy, "priority": 1, "higher_is_better": True}})

    Registry.register("LabelAccuracy")(LabelAccuracy)


def score_artifact(folder: Path, questions: Path, threads: int) -> float:
    """The share of rows whose answer is the label that greedy decoding within the labels ends in."""
    import onnxruntime_genai as og

    asked = json.loads(questions.read_text(encoding="utf-8"))
    config = og.Config(str(folder))
    options = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    opened = og.Model(config)
    # With an end, no label is the beginning of another.
    labels = [[*ids, asked["eos"]] for ids in asked["labels"]]
    longest = max(map(len, labels))

    def generator(prompt: list[int]) -> Any:
        params = og.GeneratorParams(opened)
        params.set_search_options(max_length=len(prompt) + longest, do_sample=False, batch_size=1)
        return og.Generator(opened, params)

    right = sum(choose(generator, prompt, labels) == answer
                for prompt, answer in zip(asked["prompts"], asked["answers"], strict=True))
    return right / len(asked["answers"])


def choose(new_generator: Callable[[list[int]], Any], prompt: list[int], labels: list[list[int]]) -> int:
    """The label that greedy decoding restricted to the labels' tokens ends in."""
    import numpy as np

    generator = new_generator(prompt)
    tokens, at, left = list(prompt), 0, list(range(len(labels)))
    while len(left) > 1:
        generator.append_tokens(np.array(tokens, dtype=np.int32))
        logits = generator.get_logits()
        last = logits.reshape(-1, logits.shape[-1])[-1]
        best = max(sorted({labels[i][at] for i in left}), key=lambda token: last[token])
        left = [i for i in left if labels[i][at] == best]
        tokens, at = [best], at + 1
    return left[0]
