"""Accelerators and what the libraries make of them. The questions run in a worker process: an import may crash."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.doctor.finding import Finding
from autotune.errors import AutotuneError
from autotune.workers import Worker

TOPIC = "devices"
_TORCH_INDEX = "pip install --index-url https://download.pytorch.org/whl/cu128 torch"


def devices(worker: Worker, extras: Sequence[str]) -> list[Finding]:
    """Execution providers, GPUs, bitsandbytes. ``extras`` are names of installed distributions for accelerators."""
    found: list[Finding] = []
    answers: dict[str, Any] = {}
    for name, question in (("onnxruntime", ask_onnxruntime), ("onnxruntime-genai", ask_genai), ("torch", ask_torch)):
        try:
            answers[name] = worker.run(question)
        except AutotuneError as error:
            found.append(Finding(TOPIC, name, str(error), "problem", "every run",
                                 f"pip install --force-reinstall {name}"))
    if "onnxruntime" in answers and "onnxruntime-genai" in answers:
        found += providers(answers["onnxruntime"], answers["onnxruntime-genai"], extras)
    if "torch" in answers:
        found += gpus(answers["torch"], cuda=bool(answers.get("onnxruntime-genai", {}).get("cuda")),
                      driver=shutil.which("nvidia-smi") is not None)
        found.append(_bitsandbytes(worker))
    return found


def ask_onnxruntime() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def ask_genai() -> dict[str, bool]:
    import onnxruntime_genai as og

    return {"cpu": True, "cuda": bool(og.is_cuda_available()), "dml": bool(og.is_dml_available())}


def ask_torch() -> dict[str, Any]:
    """GPUs that PyTorch can use, each with its memory in bytes."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cards = [torch.cuda.get_device_properties(i) for i in range(count)]
    return {"built_for": torch.version.cuda, "gpus": [(card.name, card.total_memory) for card in cards]}


def ask_bitsandbytes() -> None:
    """Import it and round a matrix to nf4, on the GPU where there is one."""
    import bitsandbytes.functional
    import torch

    weight = torch.randn(64, 64, device="cuda" if torch.cuda.is_available() else "cpu")
    bitsandbytes.functional.quantize_4bit(weight, quant_type="nf4")


def providers(runtime: Sequence[str], genai: Mapping[str, bool], extras: Sequence[str]) -> list[Finding]:
    """``runtime`` are ONNX Runtime's providers, ``genai`` what ONNX Runtime GenAI was built for and finds."""
    names = ", ".join(name for name, there in genai.items() if there)
    found = [Finding(TOPIC, "onnxruntime", ", ".join(runtime)), Finding(TOPIC, "onnxruntime-genai", names)]
    if any("cuda" in name or "gpu" in name for name in extras) and not genai["cuda"]:
        installed = " and ".join(extras)
        found[1] = Finding(TOPIC, "onnxruntime-genai", f"{names}, though {installed} is installed", "warning",
                           "provider cuda cannot be the target",
                           f"pip install --force-reinstall --no-deps {' '.join(extras)}")
    return found


def gpus(torch: Mapping[str, Any], *, cuda: bool, driver: bool) -> list[Finding]:
    """``cuda``: ONNX Runtime GenAI has that provider; ``driver``: NVIDIA's is installed."""
    cards = [f"{name}, {memory / 1e9:.0f} GB" for name, memory in torch["gpus"]]
    if cards and not cuda:
        return [Finding(TOPIC, "GPU", "; ".join(cards), "note",
                        "training uses it; measuring on it (provider cuda) needs more",
                        "pip install 'autotune-edge[gpu]'")]
    if cards:
        return [Finding(TOPIC, "GPU", "; ".join(cards))]
    if driver:
        built = torch["built_for"] or "the CPU alone"
        return [Finding(TOPIC, "GPU", f"nvidia-smi is here, but PyTorch, built for {built}, sees none", "warning",
                        "training runs on the CPU", _TORCH_INDEX)]
    return [Finding(TOPIC, "GPU", "none: training and measuring run on the CPU")]


def _bitsandbytes(worker: Worker) -> Finding:
    try:
        worker.run(ask_bitsandbytes)
    except AutotuneError as error:
        return Finding(TOPIC, "bitsandbytes", str(error), "warning",
                       "adapters cannot train on nf4 or int8 bases (base_precision)",
                       "pip install --force-reinstall bitsandbytes")
    return Finding(TOPIC, "bitsandbytes", "works")
