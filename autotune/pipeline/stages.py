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
from autotune.pipeline.tokens import TokenizedData
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

if TYPE_CHECKING:
    from autotune.pipeline.base_model import ModelSource
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
    record = {k: v for k, v in asdict(result).items() if k != "adapter"}
    (out / TRAINING_FILE).write_text(json.dumps(record), encoding="utf-8")


def make_merged(base: Path, adapter: Path | None, out: Path) -> Path:
    """The base with the adapter in its weights."""
    from autotune.pipeline.merge import merge_adapter

    return merge_adapter(base, adapter, out)


def make_artifact(
    model_dir: Path, data: Path, params: DeployParams, provider: str, context_length: int, out: Path
) -> None:
    """An artifact whose own tokenizer gives the ids that training used."""
    from autotune.pipeline.artifact_tokenizer import check_tokenizer
    from autotune.pipeline.assemble import assemble
    from autotune.pipeline.graph import stop_at

    rows = TokenizedData.load(data)
    info = assemble(model_dir, out / ARTIFACT_FOLDER, params, provider, context_length)
    stop_at(info.path, rows.eos_id)
    check = check_tokenizer(info.path, model_dir, rows.valid, rows.chat)
    size = sum(f.stat().st_size for f in info.path.rglob("*") if f.is_file())
    (out / INFO_FILE).write_text(
        json.dumps({"size_bytes": size, "min_generator_length": info.min_generator_length,
                    "tokenizer": asdict(check)}),
        encoding="utf-8",
    )


def check_export(
    model_dir: Path, artifact: Path, prompts: Sequence[tuple[int, ...]], provider: str, threads: int,
    min_generator_length: int, out: Path,
) -> None:
    """The artifact's next-token logits against the PyTorch model's; raises ExportError."""
    from autotune.pipeline.verify import require_agreement, verify_logits

    check = verify_logits(model_dir, artifact, prompts, provider, threads, min_generator_length)
    require_agreement(check)
    (out / INFO_FILE).write_text(json.dumps(asdict(check)), encoding="utf-8")


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

    require_metrics(names, folder)
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
