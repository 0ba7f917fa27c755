"""Olive's side of versus_olive.py. Runs inside Olive's own virtual environment, which has nothing of ours.

    OLIVE_PYTHON olive_side.py JOB.json

The job (written by versus_olive.py) names the model folder, the rows, the adapters and the deploy points. The
grid is Olive's own: its LoRA, MergeAdapterWeights and ModelBuilder passes under its search with the sequential
sampler and the joint order, in which its cache trains and merges each adapter once. (Pass by pass it would want
every adapter and every merged model evaluated in PyTorch as well.) Every pass and evaluation leaves a line in the
job's ``events`` file: the timers wrap two methods of Olive's engine and change nothing.

The artifact is scored by an evaluator registered with Olive, because a metric of type ``custom``, the shorter way,
cannot be used in 0.13.0: its run configuration cannot be written down (``Metric.serialize_backend`` calls
``model_dump`` on the backend, which is None for custom metrics alone), and the run ends before it begins.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What "all-linear" means for the decoders that Olive's ModelBuilder pass knows.
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def repair_footprint() -> None:
    """Let a trial survive that shares a cached prefix with an earlier one of the same run.

    ``FootprintNode.update`` (olive/engine/footprint.py:62 in 0.13.0) sets fields by their keyword, and
    ``model_config`` is the alias of a field: pydantic refuses it, and the trial counts as failed. The line becomes
    the one in the loop below.
    """
    from olive.engine.footprint import FootprintNode

    def update(self: Any, **kwargs: Any) -> None:
        for k, v in kwargs.items():
            setattr(self, "model_config_data" if k == "model_config" else k, v)

    FootprintNode.update = update


def log_stages(events: Path) -> None:
    """A line of ``events`` for every pass and every evaluation: ids, seconds, settings, accuracy."""
    from olive.engine.engine import Engine

    run_pass, evaluate_model = Engine._run_pass, Engine._evaluate_model
    seen: set[str] = set()

    def timed_pass(self: Any, name: str, config: Any, parent: str, accelerator: Any) -> Any:
        began = time.monotonic()
        settings = self.computed_passes_configs[name].config.to_json()
        made, model_id = run_pass(self, name, config, parent, accelerator)
        event = {"stage": name, "parent": parent, "id": model_id, "seconds": time.monotonic() - began,
                 "cached": model_id in seen, "failed": not hasattr(made, "to_json")}
        seen.add(model_id)
        append(events, {**event, "settings": settings})
        return made, model_id

    def timed_evaluation(self: Any, config: Any, model_id: str, evaluator: Any, accelerator: Any) -> Any:
        began = time.monotonic()
        signal = evaluate_model(self, config, model_id, evaluator, accelerator)
        append(events, {"stage": "evaluate", "id": model_id, "seconds": time.monotonic() - began,
                        "accuracy": signal.get_value("accuracy", "accuracy_score")})
        return signal

    Engine._run_pass, Engine._evaluate_model = timed_pass, timed_evaluation


def append(path: Path, event: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": round(time.time(), 3), **event}, default=str) + "\n")


def prepare_questions(job: dict[str, Any]) -> tuple[Path, str, str]:
    """The evaluation prompts and labels as token ids, in a file; and what begins and ends a training text.

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
    first = tokenizer("x")["input_ids"][0]
    return path, tokenizer.bos_token if first == tokenizer.bos_token_id else "", tokenizer.eos_token


def run_config(job: dict[str, Any], questions: Path, bos: str, eos: str) -> dict[str, Any]:
    """The workflow as Olive's users write it in JSON."""
    folder = Path(job["folder"])
    # BOS and EOS written out: Olive's own way would put a space beside each.
    whole_texts = {"text_template": bos + job["prompt"] + job["answer"] + eos, "add_special_tokens": False,
                   "strategy": "line-by-line", "max_seq_len": 1024, "pad_to_max_len": False}
    answer_rows = {"type": "answer_rows", "prompt": bos + job["prompt"], "answer": job["answer"] + eos}
    return {
        "input_model": {"type": "HfModel", "model_path": job["model"], "task": "text-generation",
                        "load_kwargs": {"trust_remote_code": False}},
        "systems": {"here": {"type": "LocalSystem", "accelerators": [
            {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]}},
        "host": "here", "target": "here",
        "data_configs": [{
            "name": "rows", "type": "HuggingfaceContainer",
            "load_dataset_config": {"data_name": "json", "data_files": job["train"], "split": "train"},
            "pre_process_data_config": answer_rows if job["loss"] == "answer" else whole_texts,
        }],
        "evaluators": {"answers": {
            "type": "LabelAccuracy", "type_args": {"questions": str(questions), "threads": job["threads"]},
            "metrics": [{"name": "accuracy", "type": "accuracy", "sub_types": [
                {"name": "accuracy_score", "priority": 1, "higher_is_better": True}]}],
        }},
        "evaluator": "answers", "evaluate_input_model": False,
        "search_strategy": {"execution_order": "joint", "sampler": "sequential"},
        "passes": {
            "lora": [lora_pass(job, *adapter) for adapter in job["adapters"]],
            "merge": [{"type": "MergeAdapterWeights"}],
            # What is left out of these settings, Olive searches over, at fp32 too. Logits of the last prompt token
            # alone, as ours: off by default, and kind to the evaluation.
            "build": [{"type": "ModelBuilder", "int4_is_symmetric": True, **point,
                       "extra_options": {"prune_lm_head": True, "hf_remote": False}} for point in job["points"]],
        },
        "cache_dir": str(folder / "cache"), "output_dir": str(folder / "output"), "log_severity_level": 1,
    }


def lora_pass(job: dict[str, Any], rank: int, alpha: float) -> dict[str, Any]:
    """Our recipe in Olive's words. Gradient checkpointing, on by default, saves memory and takes time."""
    return {
        "type": "LoRA", "r": rank, "alpha": alpha, "lora_dropout": 0.0, "target_modules": ALL_LINEAR,
        "torch_dtype": "float32", "device_map": None, "train_data_config": "rows",
        "training_args": {
            "max_steps": job["steps"], "per_device_train_batch_size": job["batch"], "seed": 0,
            "learning_rate": job["learning_rate"], "lr_scheduler_type": "linear", "warmup_ratio": 0.0,
            "warmup_steps": max(1, round(0.06 * job["steps"])) - 1,  # transformers counts from 0, we from 1
            "weight_decay": 0.0, "max_grad_norm": 1.0, "optim": "adamw_torch_fused",
            "gradient_checkpointing": job["checkpointing"], "save_strategy": "no", "logging_steps": 5, "use_cpu": True,
            "disable_tqdm": True, "dataloader_pin_memory": False,
        },
    }


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


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(job["folder"])
    from olive.workflows import run

    if job["repair"]:
        repair_footprint()
    register_answer_rows()
    register_evaluator()
    log_stages(Path(job["events"]))
    workflow = run_config(job, *prepare_questions(job))
    (folder / "workflow.json").write_text(json.dumps(workflow, indent=1), encoding="utf-8")
    run(workflow)


if __name__ == "__main__":
    main()
