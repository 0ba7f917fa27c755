from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from autotune.errors import ProbeError
from autotune.measure import from_probe
from autotune.targets.local import run_probe
from objectives.accuracy import Generation
from objectives.result import Collector, ProbeFailure
from tests import artifacts
from tests.test_probe import CHOICE, ENDLESS, GENERATE, LATENCY, for_artifact


def probes_of(parent: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(parent).children() if "objectives.probe" in p.cmdline()]


def kill_when_running(how: int) -> threading.Thread:
    """Send ``how`` to this process's probe once it runs."""

    def wait_and_kill() -> None:
        while not (found := probes_of(os.getpid())):
            time.sleep(0.02)
        time.sleep(0.3)
        found[0].send_signal(how)

    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    return thread


def test_a_result_holds_every_row_in_order(tmp_path: Path) -> None:
    reported: list[tuple[float, float, str]] = []

    def report(done: float, total: float, note: str = "") -> None:
        reported.append((done, total, note))

    second = {**CHOICE, "prompts": [[100], [5, 6, 7], [8]]}
    result = run_probe(for_artifact(LATENCY, CHOICE, GENERATE, second), workdir=tmp_path, report=report)
    assert len(result.samples) >= 3
    assert [s.prompt_tokens for s in result.samples[:3]] == [3, 4, 3]
    assert result.timing
    assert (result.timing.asked.samples, result.timing.asked.prompt_tokens) == (3, (3, 4))
    assert len(result.predictions) == 5
    assert result.predictions[0] == result.predictions[3]  # the same prompt in both tasks
    assert isinstance(result.generations[0], Generation)
    assert len(result.generations) == 1
    assert result.load_ms > 0
    assert result.peak_rss_mb > 10
    assert result.facts["versions"]["onnxruntime_genai"]
    assert reported[-1] == (9, 9, "scoring")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_we_are_in_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    monkeypatch.chdir(tmp_path)
    assert len(run_probe(for_artifact(CHOICE), workdir=tmp_path / "work").predictions) == 2


def test_an_error_in_the_probe_is_its_reason(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"load: .*nothing/genai_config.json"):
        run_probe(for_artifact(CHOICE, artifact=str(tmp_path / "nothing")), workdir=tmp_path)


def test_a_probe_killed_half_way_gives_no_result(tmp_path: Path) -> None:
    kill_when_running(signal.SIGKILL)
    with pytest.raises(ProbeError, match=r"killed by signal 9 \(out of memory\?\)"):
        run_probe(for_artifact(CHOICE, ENDLESS), workdir=tmp_path)


def test_a_probe_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"took longer than 1\.5 s"):
        run_probe(for_artifact(ENDLESS), workdir=tmp_path, timeout_s=1.5)
    assert probes_of(os.getpid()) == []


def test_a_python_without_the_packages_says_so(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho \"No module named 'numpy'\" >&2\nexit 3\n")
    fake.chmod(0o755)
    with pytest.raises(ProbeError, match="exit code 3; the artifact was not loaded; it last said: No module"):
        run_probe(for_artifact(CHOICE), workdir=tmp_path, python=str(fake))


def test_output_that_is_no_event_is_refused(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho hello\n")
    fake.chmod(0o755)
    with pytest.raises(ProbeError, match="its output holds 'hello'"):
        run_probe(for_artifact(CHOICE), workdir=tmp_path, python=str(fake))


def test_an_interrupt_does_not_reach_the_probe_but_ends_it(tmp_path: Path) -> None:
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom autotune.targets.local import run_probe\n"
        "try:\n run_probe(json.loads(sys.argv[1]), workdir=Path(sys.argv[2]))\n"
        "except KeyboardInterrupt:\n print('interrupted', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(for_artifact(ENDLESS)), str(tmp_path)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent, start_new_session=True,
    ) as parent:
        while not (found := probes_of(parent.pid)):
            time.sleep(0.05)
        assert os.getsid(found[0].pid) != os.getsid(parent.pid)
        parent.send_signal(signal.SIGINT)
        assert parent.stdout
        assert parent.stdout.read() == "interrupted\n"
    # Interrupted while it was being started, it ends by itself once its stdin is closed.
    deadline = time.monotonic() + 20
    while found[0].is_running() and found[0].status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def whole_run() -> list[dict[str, Any]]:
    return [
        {"event": "start", "versions": {}, "machine": {}, "settings": {}},
        {"event": "loaded", "load_ms": 5.0, "device": "CPU"},
        {"event": "prediction", "task": 0, "row": 0, "label": 2},
        {"event": "prediction", "task": 0, "row": 1, "label": 0},
        {"event": "memory", "task": 0, "peak_rss_mb": 50.0},
        {"event": "end", "ok": True},
    ]


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (1, "the artifact was not loaded"),
        (2, r"task 0 \(choice\) gave 1 of 2 rows"),
        (3, r"task 0 \(choice\) gave 1 of 2 rows"),
        (4, r"task 0 \(choice\) has no peak memory"),
        (5, "the end event is missing"),
    ],
)
def test_any_missing_event_leaves_no_result(lost: int, reason: str) -> None:
    events = whole_run()
    del events[lost]
    collector = Collector([CHOICE])
    for event in events:
        collector.feed(event)
    with pytest.raises(ProbeFailure, match=reason):
        collector.result()


def test_a_row_given_twice_is_refused() -> None:
    collector = Collector([CHOICE])
    for event in whole_run()[:4]:
        collector.feed(event)
    with pytest.raises(ProbeFailure, match="row 1 twice"):
        collector.feed(whole_run()[3])


def stopped_run() -> list[dict[str, Any]]:
    events = whole_run()
    return [*events[:3], {"event": "stopped", "task": 0, "rows": 1, "right": 0}, *events[4:]]


STOPPING = {**CHOICE, "expected": [0, 0], "stop": [[1, 0]]}


def test_a_stopped_task_is_whole_with_the_rows_up_to_there() -> None:
    reported: list[tuple[float, float]] = []
    collector = Collector([STOPPING], lambda done, total, note="": reported.append((done, total)))
    for event in stopped_run():
        collector.feed(event)
    result = collector.result()
    assert result.predictions == (2,)
    assert result.stopped_after == 1
    assert reported[-1] == (2, 2)


@pytest.mark.parametrize("lost", [2, 3, 4, 5])
def test_a_stopped_task_that_lacks_anything_gives_no_result(lost: int) -> None:
    events = stopped_run()
    del events[lost]
    collector = Collector([STOPPING])
    for event in events:
        collector.feed(event)
    with pytest.raises(ProbeFailure):
        collector.result()


def test_a_stop_that_nobody_asked_for_is_refused() -> None:
    collector = Collector([CHOICE])
    with pytest.raises(ProbeFailure, match=r"task 0 stopped after 1 rows; accepted: \[\]"):
        collector.feed(stopped_run()[3])


def test_stopping_goes_through_the_process(tmp_path: Path) -> None:
    whole = run_probe(for_artifact(CHOICE), workdir=tmp_path)
    assert whole.stopped_after is None
    wrong = [(label + 1) % 3 for label in whole.predictions]
    stopped = run_probe(for_artifact({**STOPPING, "expected": wrong}), workdir=tmp_path)
    assert stopped.stopped_after == 1
    assert stopped.predictions == whole.predictions[:1]
    right = run_probe(for_artifact({**STOPPING, "expected": list(whole.predictions)}), workdir=tmp_path)
    assert right.stopped_after is None
    assert right.predictions == whole.predictions


def test_objectives_are_made_of_a_result(tmp_path: Path) -> None:
    result = run_probe(for_artifact({**LATENCY, "samples": 20}), workdir=tmp_path)
    latency = from_probe("latency_ms", result, 0.95)
    assert latency == from_probe("latency_ms.p50", result, 0.95)
    assert (latency.n, latency.unit) == (len(result.samples), "ms")
    assert latency.n >= 20
    assert latency.low is not None
    assert latency.high is not None
    assert latency.low <= latency.value <= latency.high
    assert from_probe("peak_rss_mb", result, 0.95).value == result.peak_rss_mb
    with pytest.raises(ValueError, match="not made of a probe's timings"):
        from_probe("accuracy", result, 0.95)


def test_one_token_answers_have_no_time_per_further_token(tmp_path: Path) -> None:
    ends = for_artifact({**LATENCY, "ignore_eos": False}, artifact=str(artifacts.artifact_that_ends_at_once()))
    with pytest.raises(ProbeError, match=r"tpot_ms.* has no value: none of \d+ timed"):
        from_probe("tpot_ms", run_probe(ends, workdir=tmp_path), 0.95)
