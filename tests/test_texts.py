"""From text to answer on the device: the artifact's own tokenizer, mended where it needs it, and no other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

from objectives.request import PROTOCOL, RequestError, parse_request
from objectives.texts import MEND_FILE
from tests import artifacts

TEXTS = ["a door in the dark", "sun and cake, naïve 🥔"]
CHOICE = {"kind": "choice", "labels": [[50], [51, 52], [60]], "eos_id": artifacts.EOS}
GENERATE = {"kind": "generate", "max_new_tokens": 3}


def ids(text: str) -> list[int]:
    found: list[int] = transformers.AutoTokenizer.from_pretrained(artifacts.hf_folder())(text).input_ids
    return found


def answers(folder: Path, artifact: Path, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
    """The probe's predictions and generations."""
    file = folder / "request.json"
    file.write_text(json.dumps({"protocol": PROTOCOL, "artifact": str(artifact), "provider": "cpu", "threads": 1,
                                "tasks": list(tasks)}), encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "objectives.probe", str(file)], capture_output=True, text=True,
                          cwd=Path(__file__).parents[1], check=False)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, events[-1]
    return [{k: v for k, v in e.items() if k != "task"} for e in events if e["event"] in ("prediction", "generation")]


@pytest.mark.parametrize("task", [CHOICE, GENERATE], ids=["choice", "generate"])
def test_a_text_is_answered_as_its_ids_are(tmp_path: Path, task: dict[str, Any]) -> None:
    told = answers(tmp_path, artifacts.artifact(), {**task, "texts": TEXTS})
    assert len(told) == len(TEXTS)
    assert told == answers(tmp_path, artifacts.artifact(), {**task, "prompts": [ids(t) for t in TEXTS]})


def test_what_mends_the_tokenizer_is_applied(tmp_path: Path) -> None:
    mended = tmp_path / "artifact"
    shutil.copytree(artifacts.artifact(), mended)
    (mended / MEND_FILE).write_text(json.dumps({"prepend_ids": [2, 3]}), encoding="utf-8")
    told = answers(tmp_path, mended, {**GENERATE, "texts": TEXTS})
    assert told == answers(tmp_path, mended, {**GENERATE, "prompts": [[2, 3, *ids(t)] for t in TEXTS]})
    assert told != answers(tmp_path, mended, {**GENERATE, "prompts": [ids(t) for t in TEXTS]})


@pytest.mark.parametrize(("task", "complaint"), [
    ({"texts": TEXTS, "prompts": [[5]]}, "prompts and texts found; accepted: one of them"),
    ({}, "neither prompts nor texts found"),
    ({"prompts": [[5]], "chat": True}, "chat: found beside prompts"),
    ({"texts": []}, "texts: found none"), ({"texts": [""]}, "texts, none empty"),
    ({"texts": TEXTS, "chat": "yes"}, "chat: found 'yes'; accepted: true, false"),
])
def test_a_request_that_is_not_clear_is_refused(task: dict[str, Any], complaint: str) -> None:
    raw = {"protocol": PROTOCOL, "artifact": "a", "provider": "cpu", "threads": 1, "tasks": [{**GENERATE, **task}]}
    with pytest.raises(RequestError, match=complaint.replace("(", r"\(")):
        parse_request(raw)
