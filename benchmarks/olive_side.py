"""Olive's side of versus_olive.py: its workflow and its clock.

Runs inside Olive's own virtual environment, which has nothing of ours:

    OLIVE_PYTHON olive_side.py JOB.json

The job (written by versus_olive.py) names the model folder, the rows, the adapters and the deploy points. The
grid is Olive's own: its LoRA, MergeAdapterWeights and ModelBuilder passes under its search with the sequential
sampler and the joint order, in which its cache trains and merges each adapter once. (Pass by pass it would want
every adapter and every merged model evaluated in PyTorch as well.) Every pass and evaluation leaves a line in the
job's ``events`` file: the timers wrap two methods of Olive's engine and change nothing.

``defaults`` asks LMEvaluator; ``tuned`` an evaluator registered with Olive (olive_parts.py), because a metric of type
``custom``, the shorter way, cannot be used in 0.13.0: its run configuration cannot be written down
(``Metric.serialize_backend`` calls ``model_dump`` on the backend, which is None for custom metrics alone), and the run
ends before it begins.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

#: The stage within an evaluation in which lm-eval reads what tasks there are.
LISTING = "evaluate: listing tasks"
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


def log_stages(events: Path, accuracy: tuple[str, str], emptied: bool) -> None:
    """A line of ``events`` for every pass and every evaluation: ids, seconds, settings, the metric ``accuracy``.

    Where ``emptied``, an artifact loses its weights after its evaluation: only the copy to output reads it again.
    """
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
        if emptied and model_id in seen:
            empty(Path(config.config["model_path"]))
        append(events, {"stage": "evaluate" if model_id in seen else "evaluate input", "id": model_id,
                        "seconds": time.monotonic() - began, "accuracy": signal.get_value(*accuracy)})
        return signal

    Engine._run_pass, Engine._evaluate_model = timed_pass, timed_evaluation


def log_listings(events: Path) -> None:
    """A line of ``events`` whenever LMEvaluator lists all tasks of lm-eval: seconds that are in an evaluation too."""
    from lm_eval.tasks import TaskManager

    make = TaskManager.__init__

    def timed(self: Any, *args: Any, **kwargs: Any) -> None:
        began = time.monotonic()
        make(self, *args, **kwargs)
        append(events, {"stage": LISTING, "seconds": time.monotonic() - began})

    TaskManager.__init__ = timed


def empty(artifact: Path) -> None:
    for weights in (artifact if artifact.is_dir() else artifact.parent).glob("*.data"):
        weights.unlink()  # before another of the name: a session may still map it
        weights.touch()


def append(path: Path, event: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": round(time.time(), 3), **event}, default=str) + "\n")


def text_ends(model: str) -> tuple[str, str]:
    """What begins and ends a training text: BOS where the model's tokenizer writes it, and EOS."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    first = tokenizer("x")["input_ids"][0]
    return tokenizer.bos_token if first == tokenizer.bos_token_id else "", tokenizer.eos_token


def run_config(job: dict[str, Any], bos: str, eos: str) -> dict[str, Any]:
    """The workflow as Olive's users write it in JSON."""
    folder = Path(job["folder"])
    tuned = job["way"] == "tuned"
    # Logits of the last prompt token alone, as ours: kind to an evaluation that asks for no others.
    options = {"extra_options": {"prune_lm_head": True, "hf_remote": False}} if tuned else {}
    return {
        "input_model": {"type": "HfModel", "model_path": job["model"], "task": "text-generation",
                        "load_kwargs": {"trust_remote_code": False}},
        "systems": {"here": {"type": "LocalSystem", "accelerators": [
            {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]}},
        "host": "here", "target": "here",
        "data_configs": [{
            "name": "rows", "type": "HuggingfaceContainer",
            "load_dataset_config": {"data_name": "json", "data_files": job["train"], "split": "train"},
            "pre_process_data_config": training_texts(job, bos, eos),
        }],
        "evaluators": {"answers": label_accuracy(job) if tuned else lm_evaluator(job, bos)},
        "evaluator": "answers", "evaluate_input_model": not tuned,
        "search_strategy": {"execution_order": "joint", "sampler": "sequential"},
        "passes": {
            "lora": [lora_pass(job, *adapter) for adapter in job["adapters"]],
            "merge": [{"type": "MergeAdapterWeights"}],
            # What is left out of a point's settings, Olive searches over, at fp32 too.
            "build": [{"type": "ModelBuilder", "int4_is_symmetric": True, **point, **options}
                      for point in job["points"]],
        },
        "cache_dir": str(folder / "cache"), "output_dir": str(folder / "output"), "log_severity_level": 1,
    }


def training_texts(job: dict[str, Any], bos: str, eos: str) -> dict[str, Any]:
    """Each row a sequence of its own. BOS and EOS written out: Olive's own way would put a space beside each."""
    if job["loss"] == "answer":
        return {"type": "answer_rows", "prompt": bos + job["prompt"], "answer": job["answer"] + eos}
    return {"text_template": bos + job["prompt"] + job["answer"] + eos, "add_special_tokens": False,
            "strategy": "line-by-line", "max_seq_len": 1024, "pad_to_max_len": False}


def lm_evaluator(job: dict[str, Any], bos: str) -> dict[str, Any]:
    """LMEvaluator with the settings of ``olive benchmark``, on the rows as a task of multiple choice.

    It has no metrics to name: what lm-eval returns is the result, and nothing that a search could aim at.
    """
    jinja = {name: job[name].replace("{", "{{").replace("}", "}}") for name in ("prompt", "answer")}
    task = {"task": "rows", "dataset_path": "json", "dataset_kwargs": {"data_files": {"validation": job["valid"]}},
            "validation_split": "validation", "output_type": "multiple_choice", "doc_to_text": bos + jinja["prompt"],
            "doc_to_choice": job["labels"], "doc_to_target": jinja["answer"], "target_delimiter": "",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}
    return {"type": "LMEvaluator", "tasks": [task], "batch_size": 1, "max_length": 1024, "device": "cpu"}


def label_accuracy(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "LabelAccuracy", "type_args": {"questions": job["questions"], "threads": job["threads"]},
        "metrics": [{"name": "accuracy", "type": "accuracy", "sub_types": [
            {"name": "accuracy_score", "priority": 1, "higher_is_better": True}]}],
    }


def lora_pass(job: dict[str, Any], rank: int, alpha: float) -> dict[str, Any]:
    """Our recipe in Olive's words. Gradient checkpointing, on by default, saves memory and takes time."""
    tuned = {"gradient_checkpointing": False, "save_strategy": "no", "logging_steps": 5, "use_cpu": True,
             "disable_tqdm": True, "dataloader_pin_memory": False}
    return {
        "type": "LoRA", "r": rank, "alpha": alpha, "lora_dropout": 0.0, "target_modules": ALL_LINEAR,
        "torch_dtype": "float32", "train_data_config": "rows",
        **({"device_map": None} if job["way"] == "tuned" else {}),
        "training_args": {
            "max_steps": job["steps"], "per_device_train_batch_size": job["batch"], "seed": 0,
            "learning_rate": job["learning_rate"], "lr_scheduler_type": "linear", "warmup_ratio": 0.0,
            "warmup_steps": max(1, round(0.06 * job["steps"])) - 1,  # transformers counts from 0, we from 1
            "weight_decay": 0.0, "max_grad_norm": 1.0, "optim": "adamw_torch_fused",
            **(tuned if job["way"] == "tuned" else {}),
        },
    }


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(job["folder"])
    from olive.workflows import run

    if job["repair"]:
        repair_footprint()
    accuracy = ("rows", "acc")
    if job["way"] == "tuned":
        import olive_parts  # beside this file, which runs as a script

        olive_parts.register_answer_rows()
        olive_parts.register_evaluator()
        job["questions"] = str(olive_parts.prepare_questions(job))
        accuracy = ("accuracy", "accuracy_score")
    else:
        log_listings(Path(job["events"]))
    log_stages(Path(job["events"]), accuracy, job["empty"])
    workflow = run_config(job, *text_ends(job["model"]))
    (folder / "workflow.json").write_text(json.dumps(workflow, indent=1), encoding="utf-8")
    run(workflow)


if __name__ == "__main__":
    main()
