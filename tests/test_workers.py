"""The worker process: values and errors come back, crashes and noise stay there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.errors import DataError, ProbeError, TrainingError
from autotune.workers import Worker
from tests.errands import add, refuse, slow, stumble


def pid() -> int:
    return os.getpid()


def stage_error() -> None:
    raise ProbeError("half of it")


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path / "worker.log")
    yield made
    made.close(kill=True)


def test_values_come_back_and_noise_goes_to_the_log(
    worker: Worker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert worker.run(add, 2, b=3) == 5
    captured = capfd.readouterr()
    assert "noise" not in captured.out + captured.err
    worker.close()
    assert "noise on stdout" in (tmp_path / "worker.log").read_text()


def test_the_process_is_kept_between_stages_and_has_its_environment(worker: Worker) -> None:
    assert worker.run(pid) == worker.run(pid) != os.getpid()
    assert worker.run(os.getenv, "GOMP_SPINCOUNT") == "20000"
    assert worker.run(os.getenv, "ORT_DISABLE_TELEMETRY") == "1"


def test_our_errors_come_back_whole(worker: Worker) -> None:
    with pytest.raises(DataError) as caught:
        worker.run(refuse)
    assert caught.value.problems[0].where == "line 3"
    with pytest.raises(ProbeError, match="half of it"):
        worker.run(stage_error, error=TrainingError)


def test_a_killed_process_fails_its_stage_alone(worker: Worker) -> None:
    with pytest.raises(TrainingError, match=r"killed by SIGKILL \(out of memory\?\)"):
        worker.run(crash, error=TrainingError)
    assert worker.run(add, 1, 1) == 2


def test_an_unforeseen_error_is_one_sentence_with_the_log(worker: Worker) -> None:
    with pytest.raises(TrainingError, match=r"ZeroDivisionError: what now \(log: .*worker.log\)"):
        worker.run(stumble, error=TrainingError)


def test_progress_arrives(worker: Worker) -> None:
    seen: list[tuple[float, float, str]] = []
    assert worker.run(slow, on_progress=lambda *args: seen.append(args), reporting=True) == "done"
    assert seen[-1][1] == 4
    assert seen[-1][2].startswith("part")
