"""Olive's own virtual environment for versus_olive.py: made where it is missing, asked for versions, given a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.grid import say
from benchmarks.record import SHOWN

OLIVE = ("olive-ai==0.13.0", "transformers<5", "onnxruntime-genai==0.14.1", "torch>=2.9,<2.14", "peft>=0.21,<0.22",
         "accelerate>=1.15,<2", "datasets>=5,<6", "optuna>=5,<6", "psutil>=7.2,<8", "lm-eval==0.4.13")


def translate_model(model: Path, folder: Path) -> Path:
    """A folder that transformers 4 reads: RoPE parameters at the top of config.json, a tokenizer class it knows."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    rope = config.pop("rope_parameters", None) or {}
    whole = rope.get("full_attention", rope)
    if whole:
        config["rope_theta"] = whole["rope_theta"]
        rest = {k: v for k, v in whole.items() if k != "rope_theta"}
        config["rope_scaling"] = rest if rest.get("rope_type", "default") != "default" else None
    if "sliding_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    config["torch_dtype"] = config.pop("dtype", config.get("torch_dtype", "float32"))
    replace(folder / "config.json", config)
    tokenizer = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    if tokenizer.get("tokenizer_class") == "TokenizersBackend":
        tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    replace(folder / "tokenizer_config.json", tokenizer)
    return folder


def replace(link: Path, content: dict[str, Any]) -> None:
    link.unlink(missing_ok=True)
    link.write_text(json.dumps(content, indent=1), encoding="utf-8")


def olive_python(venv: Path, began: float) -> Path:
    """The interpreter of Olive's environment, made first where it is missing or was left unfinished."""
    python = venv / "bin" / "python"
    if not python.exists():
        say(began, f"making Olive's environment in {venv}")
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    if not versions(python):
        say(began, f"installing {', '.join(OLIVE)}")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *OLIVE], check=True)
    return python


def versions(python: Path) -> dict[str, str]:
    """What is installed beside this interpreter; nothing when one is missing."""
    names = ["olive-ai", *SHOWN]
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {names}}}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {}


def process_environment(folder: Path, threads: int) -> dict[str, str]:
    """What Olive's process finds: nothing of ours, no network, no telemetry, caches under ``folder``."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return env | {
        "CI": "1", "OLIVE_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false", "OLIVE_TELEMETRY_CACHE_DIR": str(folder / "telemetry"),
    }
