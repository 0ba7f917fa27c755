from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from objectives.request import RequestError, parse_request
from tests import artifacts

CHOICE = {"kind": "choice", "prompts": [[5, 6, 7], [8, 9]], "labels": [[50], [50, 51], [60]], "eos_id": 1}
GENERATE = {"kind": "generate", "prompts": [[5, 6, 7]], "max_new_tokens": 4, "stop_ids": [1], "stop_strings": ["@"]}
LATENCY = {
    "kind": "latency", "prompts": [[5, 6, 7], [8, 9, 10, 11]], "new_tokens": 3, "ignore_eos": True,
    "samples": 3, "max_seconds": 5,
}
ENDLESS = {**LATENCY, "samples": 10**9, "max_seconds": 10**6}
ROOT = Path(__file__).parent.parent


def request(*tasks: dict[str, Any], **changed: Any) -> dict[str, Any]:
    whole = {"protocol": 3, "artifact": "nowhere", "provider": "cpu", "threads": 1, "tasks": list(tasks)}
    return {**whole, **changed}


def for_artifact(*tasks: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return request(*tasks, **{"artifact": str(artifacts.artifact()), **changed})


def stopping(expected: Any, stop: Any) -> dict[str, Any]:
    return request({**CHOICE, "expected": expected, "stop": stop})


def probe(folder: Path, asked: Any, *python: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, events, stderr. Fails where stdout holds anything but JSON lines."""
    file = folder / "request.json"
    file.write_text(asked if isinstance(asked, str) else json.dumps(asked))
    done = subprocess.run(
        [sys.executable, *python, "-m", "objectives.probe", str(file)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_events_come_in_order_and_imports_stay_light(tmp_path: Path) -> None:
    code, events, stderr = probe(tmp_path, for_artifact(LATENCY, CHOICE, GENERATE), "-X", "importtime")
    assert code == 0
    kinds = [e["event"] for e in events if e["event"] != "progress"]
    assert [kind for kind in kinds if kind not in ("block", "sample")] == [
        "start", "loaded", "warmed", "memory", "prediction", "prediction", "memory", "generation", "memory", "end"
    ]
    assert set(kinds[kinds.index("memory") + 1 : kinds.index("prediction")]) == {"block", "sample"}
    assert events[-1]["event"] == "end"
    imported = set(re.findall(r"\|\s+([\w.]+)$", stderr, flags=re.MULTILINE))
    assert "onnxruntime_genai" in imported
    heavy = {"torch", "transformers", "autotune", "onnxruntime", "scipy", "optuna", "evaluate"}
    assert not heavy & {name.partition(".")[0] for name in imported}


def test_the_start_event_says_what_was_measured_on(tmp_path: Path) -> None:
    _, events, _ = probe(tmp_path, for_artifact(CHOICE))
    assert set(events[0]["versions"]) == {"python", "numpy", "onnxruntime", "onnxruntime_genai"}
    assert all(events[0]["versions"].values())
    assert events[0]["machine"]["memory_mb"] > 100
    assert events[0]["machine"]["cores_logical"] >= 1
    settings = events[0]["settings"]
    assert (settings["provider"], settings["threads"]) == ("cpu", 1)
    bound = sys.platform == "linux" and events[0]["machine"]["cores_usable"] > 1
    assert len(settings["affinity"] or ()) == bound
    assert events[1]["load_ms"] > 0


def test_native_noise_does_not_reach_stdout(tmp_path: Path) -> None:
    # The library writes its log to file descriptor 1 when asked to.
    noisy = (
        "import os, sys, runpy, objectives.session as s; real = s.open_model\n"
        "def loud(*a):\n os.write(1, b'native noise\\n'); print('python noise', flush=True); return real(*a)\n"
        "s.open_model = loud; sys.argv = ['probe', sys.argv[1]]\n"
        "runpy.run_module('objectives.probe', run_name='__main__')"
    )
    file = tmp_path / "request.json"
    file.write_text(json.dumps(for_artifact(CHOICE)))
    done = subprocess.run(
        [sys.executable, "-c", noisy, str(file)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()][-1] == "end"
    assert "native noise" in done.stderr
    assert "python noise" in done.stderr


def test_an_artifact_that_cannot_be_opened_is_an_error_event(tmp_path: Path) -> None:
    code, events, _ = probe(tmp_path, request(CHOICE, artifact=str(tmp_path / "nothing")))
    assert code == 1
    assert events[-1]["event"] == "error"
    assert events[-1]["stage"] == "load"
    assert "nothing/genai_config.json" in events[-1]["reason"]


def test_an_error_names_its_task_and_ends_the_run(tmp_path: Path) -> None:
    too_long = {**LATENCY, "new_tokens": 5000}
    code, events, _ = probe(tmp_path, for_artifact(CHOICE, too_long, CHOICE))
    assert code == 1
    assert (events[-1]["event"], events[-1]["stage"]) == ("error", "task 1")
    assert not any(e["event"] == "end" for e in events)


def test_peak_memory_is_the_probes_own_and_not_its_parents(tmp_path: Path) -> None:
    ballast = np.ones(600_000_000, dtype=np.uint8)
    _, events, _ = probe(tmp_path, for_artifact(CHOICE))
    peak = next(e["peak_rss_mb"] for e in events if e["event"] == "memory")
    assert 20 < peak < len(ballast) / 1e6 / 2


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("not json", "cannot read the request request.json"),
        (request(CHOICE, protocol=2), "protocol: found 2; accepted: 3"),
    ],
)
def test_a_bad_request_is_an_error_event(tmp_path: Path, asked: Any, reason: str) -> None:
    code, events, _ = probe(tmp_path, asked)
    assert code == 1
    assert [e["event"] for e in events] == ["error"]
    assert events[0]["stage"] == "request"
    assert reason in events[0]["reason"]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ([], "the request is a list"),
        (request({"kind": "chose"}), "task 0: kind: found 'chose'; accepted: choice, generate, latency"),
        (request(), "tasks: found .*at least one task"),
        ({"protocol": 3, "artifact": "a"}, "request: missing provider, threads, tasks"),
        (request(CHOICE, {"kind": "choice", "prompts": [[1]]}), "task 1: missing labels, eos_id"),
        (request({**LATENCY, "max_second": 1}), "task 0: unknown key 'max_second', did you mean 'max_seconds'"),
        (request({**LATENCY, "warmup": 3}), "task 0: unknown key 'warmup'"),
        (request(CHOICE, threads=0), "threads: found 0; accepted: an integer >= 1"),
        (request(CHOICE, threads=True), "threads: found True"),
        (request({**CHOICE, "prompts": [[1], []]}), r"prompts\[1\]: found \[\]"),
        (request({**CHOICE, "prompts": [[1, -1]]}), r"prompts\[0\]: found"),
        (request({**LATENCY, "ignore_eos": 1}), "ignore_eos: found 1; accepted: true, false"),
        (request({**LATENCY, "max_seconds": -1}), "max_seconds: found -1"),
        (request({**LATENCY, "sustain_seconds": "1m"}), "sustain_seconds: found '1m'; accepted: a number >= 0"),
        (request({**LATENCY, "resident": 0}), "resident: found 0; accepted: true, false"),
        (request({**LATENCY, "reference": "a"}), "task 0: reference: found 'a'; accepted: an object"),
        (request({**LATENCY, "reference": {}}), "task 0: reference: missing artifact"),
        (request({**LATENCY, "reference": {"artifact": "a", "folder": 1}}), "reference: unknown key 'folder'"),
        (request({**LATENCY, "reference": {"artifact": "a"}}, CHOICE), "task 0: reference: found before other tasks"),
        (request(LATENCY, CHOICE, LATENCY), r"found latency in tasks \[0, 2\]; accepted: one latency task"),
        (request({**GENERATE, "stop_strings": [""]}), "stop_strings: found"),
        (request({**CHOICE, "expected": [0, 1]}), "expected found alone; accepted: expected and stop, both or neither"),
        (request({**CHOICE, "stop": [[1, 0]]}), "stop found alone"),
        (stopping([0], []), r"expected: found \[0\]; accepted: 2 indices of labels"),
        (stopping([0, 3], []), r"expected\[1\]: found 3; accepted: 0 to 2"),
        (stopping([0, True], []), r"expected\[1\]: found True"),
        (stopping([0, 1], {}), r"stop: found \{\}; accepted: a list of \[rows, at most right\]"),
        (stopping([0, 1], [[1]]), r"stop\[0\]: found \[1\]; accepted: \[rows, at most right\]"),
        (stopping([0, 1], [[1, 0.5]]), r"stop\[0\]: found \[1, 0.5\]"),
        (stopping([0, 1], [[2, 0]]), r"stop\[0\]: found 2 rows; accepted: 1 to 1"),
        (stopping([0, 1], [[0, 0]]), r"stop\[0\]: found 0 rows"),
        (stopping([0, 1], [[1, 0], [1, 0]]), r"stop\[1\]: found 1 rows"),
        (stopping([0, 1], [[1, 2]]), r"stop\[0\]: found at most 2 right; accepted: 0 to 1"),
        (request({**GENERATE, "stop": []}), "task 0: unknown key 'stop'"),
        (request(CHOICE, provider_options=[1]), "provider_options: found"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(asked: Any, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        parse_request(asked)


def test_a_full_request_is_understood() -> None:
    parsed = parse_request(request(CHOICE, GENERATE, LATENCY, min_generator_length=512))
    assert parsed.min_generator_length == 512
    assert [type(t).__name__ for t in parsed.tasks] == ["ChoiceTask", "GenerateTask", "LatencyTask"]


def many_choices() -> dict[str, Any]:
    prompts = [[5, 6 + i % 7, *range(10, 10 + i % 3), 90 + i] for i in range(64)]
    return {**CHOICE, "prompts": prompts}


def labels_of(events: list[dict[str, Any]], task: int) -> dict[int, int]:
    return {e["row"]: e["label"] for e in events if e["event"] == "prediction" and e["task"] == task}


def test_the_last_tasks_labels_are_those_of_one_at_a_time(tmp_path: Path) -> None:
    # Where it is not the last task, it is asked one at a time.
    _, events, _ = probe(tmp_path, for_artifact(many_choices(), many_choices()))
    assert labels_of(events, 0) == labels_of(events, 1)
    assert list(labels_of(events, 0)) == list(range(64))
    assert sorted(labels_of(events, 1)) == list(range(64))


@pytest.mark.parametrize("last", [True, False])
def test_a_task_with_too_few_right_stops_at_the_look(tmp_path: Path, last: bool) -> None:
    truth = labels_of(probe(tmp_path, for_artifact(many_choices()))[1], 0)
    expected = [truth[row] if row < 8 else (truth[row] + 1) % 3 for row in range(64)]
    task = {**many_choices(), "expected": expected, "stop": [[8, 7], [16, 7], [32, 8], [48, 48]]}
    code, events, _ = probe(tmp_path, for_artifact(task, *([] if last else [CHOICE])))
    assert code == 0
    assert {row: label for row, label in truth.items() if row < 32} == labels_of(events, 0)
    kinds = [e["event"] for e in events if e.get("task") == 0 and e["event"] != "progress"]
    assert kinds[-3:] == ["prediction", "stopped", "memory"]
    assert next(e for e in events if e["event"] == "stopped") == {
        "event": "stopped", "task": 0, "rows": 32, "right": 8
    }
    assert events[-1]["event"] == "end"


def test_rows_before_a_look_come_before_those_after_it(tmp_path: Path) -> None:
    task = {**many_choices(), "expected": [0] * 64, "stop": [[20, 0], [40, 0]]}
    _, events, _ = probe(tmp_path, for_artifact(task))
    rows = [e["row"] for e in events if e["event"] == "prediction"]
    assert [sorted(rows[a:b]) for a, b in ((0, 20), (20, 40), (40, 64))] == [
        list(range(20)), list(range(20, 40)), list(range(40, 64))
    ]


def test_threads_are_as_asked(tmp_path: Path) -> None:
    def threads_while_running(asked: int) -> int:
        file = tmp_path / f"{asked}.json"
        file.write_text(json.dumps(for_artifact(ENDLESS, threads=asked)))
        with subprocess.Popen(
            [sys.executable, "-m", "objectives.probe", str(file)], stdout=subprocess.PIPE, cwd=ROOT
        ) as process:
            try:
                assert process.stdout
                while json.loads(process.stdout.readline())["event"] != "sample":
                    pass
                return psutil.Process(process.pid).num_threads()
            finally:
                process.kill()

    one = threads_while_running(1)
    assert [threads_while_running(n) - one for n in (2, 4)] == [1, 3]


def test_the_probe_dies_with_its_parent_even_when_that_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps(for_artifact(ENDLESS)))
    parent_code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'objectives.probe', sys.argv[1], '--parent-pipe'],"
        " stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)\n"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent_code, str(file)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        try:
            while child.is_running() and not any("onnxruntime" in m.path for m in child.memory_maps()):
                time.sleep(0.05)
            parent.kill()
            child.wait(timeout=20)
        except psutil.NoSuchProcess:
            pass
        finally:
            parent.kill()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
