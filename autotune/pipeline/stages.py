"""The stages as the worker runs them: each writes into the empty folder it is given.

Heavy imports stay inside the functions, so that naming a stage costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.pipeline.progress import Report, silent
from autotune.pipeline.template_params import TemplateParams
from autotune.pipeline.tokens import Example, TokenizedData
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

if TYPE_CHECKING:
    from autotune.errors import TrainingError
    from autotune.pipeline.base_model import ModelSource
    from autotune.pipeline.packed.job import AdapterJob
    from autotune.pipeline.point import ArtifactInfo
    from autotune.pipeline.recipe import TrainResult
    from autotune.stats import Measurement

DATA_FILE = "data.json"
WARNINGS_FILE = "warnings.json"
TRAINING_FILE = "training.json"
INFO_FILE = "info.json"
ARTIFACT_FOLDER = "artifact"


def make_base(source: ModelSource, out: Path, report: Report = silent) -> Path:
    """One local Hugging Face folder for any kind of source."""
    from autotune.pipeline.base_model import materialize

    return materialize(source, out, report)


def make_data(model_dir: Path, out: Path, spec: Mapping[str, Any], report: Report = silent) -> None:
    """All splits as token ids; ``spec`` are the arguments of ``load_data``."""
    from autotune.pipeline.tokenize import load_data

    data, warnings = load_data(model_dir, **spec, report=report)
    data.save(out / DATA_FILE)
    (out / WARNINGS_FILE).write_text(json.dumps(warnings, ensure_ascii=False), encoding="utf-8")


def make_adapter(
    base: Path, data: Path, params: AdapterParams, out: Path, seed: int, threads: int | None,
    report: Report = silent,
) -> None:
    """A trained adapter in PEFT's format, with the record of its training beside."""
    from autotune.pipeline.train import train_adapter

    result = train_adapter(base, TokenizedData.load(data), params, out, seed=seed, report=report, threads=threads)
    _write_training(result, out)


def make_adapters(
    base: Path, data: Path, jobs: Sequence[AdapterJob], threads: int | None, report: Report = silent,
) -> list[float | TrainingError]:
    """What ``make_adapter`` makes, for several adapters trained together, each as far as its job says.

    Gives the seconds of each, what they shared shared out; or why it is not made. Raises what ``train_adapters`` does.
    """
    from autotune.errors import TrainingError
    from autotune.pipeline.train import train_adapters

    results = train_adapters(base, TokenizedData.load(data), jobs, report=report, threads=threads)
    for result, job in zip(results, jobs, strict=True):
        if not isinstance(result, TrainingError):
            before = 0 if job.resume is None else _read_training(job.resume)["steps"]
            _write_training(result, job.out, before)
    return [result if isinstance(result, TrainingError) else result.seconds for result in results]


def _read_training(adapter: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((adapter / TRAINING_FILE).read_text(encoding="utf-8"))
    return record


def _write_training(result: TrainResult, out: Path, resumed_at: int = 0) -> None:
    """``steps`` and the losses are of the whole training; ``seconds`` of the steps after ``resumed_at`` alone."""
    record = {k: v for k, v in asdict(result).items() if k != "adapter"} | {"resumed_at": resumed_at}
    (out / TRAINING_FILE).write_text(json.dumps(record), encoding="utf-8")


def make_template(base: Path, out: Path, params: TemplateParams) -> None:
    """ModelBuilder's graph of the base, for all precisions of a provider."""
    from autotune.pipeline import template

    template.make_template(base, out, params)


def make_point(
    template: Path, base: Path, out: Path, params: DeployParams, provider: str, context_length: int
) -> None:
    """The base's own artifact at a deploy point, which adapters' artifacts share most of."""
    from autotune.pipeline import point

    _write_info(out, point.make_point(template, base, out, params, provider, context_length))


def make_judgement(
    base: Path, data: Path, adapter: Path, points: Mapping[DeployParams, Path], full: bool, rows: int,
    threads: int | None, out: Path,
) -> None:
    """How an adapter answers at most ``rows`` validation rows as each point rounds, and at ``full`` precision."""
    from autotune.pipeline.frozen_base import resolve_device
    from autotune.pipeline.judge import judge
    from autotune.pipeline.judgement import write
    from autotune.pipeline.recipe import spread
    from autotune.pipeline.resident import frozen_base
    from autotune.pipeline.train import torch_settings
    from objectives.accuracy import build_trie

    tokens = TokenizedData.load(data)
    trie = build_trie(tokens.label_ids, tokens.eos_id) if tokens.task == "choice" else None
    with torch_settings(threads, resolve_device()), frozen_base(base, "fp32") as model:
        write(judge(model, base, adapter, spread(tokens.valid, rows), trie, points, full), out)


def check_tokenizer(template: Path, base_name: str, rows: Sequence[Example], chat: bool, out: Path) -> None:
    """What mends an artifact's tokenizer, should it give other ids than training used; raises AssemblyError."""
    from autotune.pipeline import artifact_tokenizer
    from autotune.pipeline.template import GRAPH_FOLDER

    check = artifact_tokenizer.check_tokenizer(template / GRAPH_FOLDER, base_name, rows, chat, out)
    (out / INFO_FILE).write_text(json.dumps(asdict(check)), encoding="utf-8")


def make_artifact(
    point: Path, base: Path, adapter: Path, tokenizer: Path, eos_id: int, out: Path, report: Report = silent
) -> None:
    """An adapter's artifact, whose own tokenizer gives the ids that training used."""
    import shutil

    from autotune.pipeline.assemble import assemble
    from autotune.pipeline.graph import stop_at
    from autotune.pipeline.point import describe
    from objectives.texts import MEND_FILE

    info = assemble(point, base, adapter, out / ARTIFACT_FOLDER, report)
    stop_at(info.path, eos_id)
    if (tokenizer / MEND_FILE).exists():
        shutil.copyfile(tokenizer / MEND_FILE, info.path / MEND_FILE)
    _write_info(out, describe(info.path, 0.0))


def _write_info(out: Path, info: ArtifactInfo) -> None:
    record = {"size_bytes": info.size_bytes, "min_generator_length": info.min_generator_length}
    (out / INFO_FILE).write_text(json.dumps(record), encoding="utf-8")


def check_export(
    model_dir: Path, artifact: Path, prompts: Sequence[tuple[int, ...]], provider: str, threads: int,
    min_generator_length: int, out: Path,
) -> None:
    """The artifact's next-token logits against the PyTorch model's; raises ExportError."""
    from autotune.pipeline.verify import require_agreement, verify_logits

    check = verify_logits(model_dir, artifact, prompts, provider, threads, min_generator_length)
    require_agreement(check)
    (out / INFO_FILE).write_text(json.dumps(asdict(check)), encoding="utf-8")


def compare_logits(
    model_dir: Path, adapter: Path, artifact: Path, prompts: Sequence[tuple[int, ...]], provider: str, threads: int,
    min_generator_length: int,
) -> dict[str, Any]:
    """How far an adapter's artifact is from the adapted PyTorch model: next-token logits, as a record.

    It is no verdict: what rounding changes here is what the artifact's accuracy is measured for.
    """
    from autotune.pipeline.verify import verify_logits

    found = asdict(verify_logits(model_dir, artifact, prompts, provider, threads, min_generator_length, adapter))
    del found["ok"]
    return found


def require_provider(provider: str) -> None:
    """Raises ConfigError where the installed ONNX Runtime GenAI has no such execution provider."""
    import onnxruntime_genai as og

    from autotune.errors import ConfigError, Problem

    here = {"cpu": True, "cuda": og.is_cuda_available(), "dml": og.is_dml_available()}
    if not here[provider]:
        accepted = ", ".join(name for name, there in here.items() if there)
        hint = "; for cuda: pip install 'autotune-edge[gpu]' on a machine with an NVIDIA GPU" * (provider == "cuda")
        raise ConfigError([Problem("study.yaml", "target.provider", f"{provider}, which ONNX Runtime lacks here",
                                   accepted + hint)])


def require_metrics(names: Sequence[str], folder: Path) -> None:
    """Load every metric, so that one which cannot be had is said before any work.

    ``folder`` is where a user's own metric modules lie.
    """
    import sys

    from autotune.metrics import load_metric

    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    for name in names:
        load_metric(name.removeprefix("evaluate:"))


def score_answers(
    names: Sequence[str], predictions: Sequence[str], references: Sequence[str], labels: Sequence[str],
    confidence: float, folder: Path,
) -> dict[str, Measurement]:
    """Every metric of the answers, by name."""
    from autotune.metrics import score

    require_metrics([name for name in names if ":" in name], folder)  # our own need nothing loaded
    return {name: score(name, predictions, references, labels, confidence) for name in names}


def matmul_gflops() -> float:
    """This machine's fp32 matmul rate in GFLOP/s, from half a second of products: for estimates."""
    import time

    import torch

    a = torch.randn(512, 1024)
    b = torch.randn(1024, 2048)
    a @ b
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < 0.5:
        a @ b
        done += 1
    return done * 2 * 512 * 1024 * 2048 / (time.perf_counter() - start) / 1e9
