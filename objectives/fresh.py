"""The probe in a fresh process on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import objectives
from objectives.result import Collector, ProbeFailure, ProbeResult, Report, silent

#: -P: the folder we happen to be in must not stand in for a package of the same name. -B: a bundle stays as it is.
_OPTIONS = ["-P", "-B"] if sys.dont_write_bytecode else ["-P"]


def run_probe(
    request: Mapping[str, Any], *, python: str = sys.executable, workdir: Path,
    timeout_s: float | None = None, report: Report = silent,
) -> ProbeResult:
    """Run ``objectives.probe`` on ``request`` (its protocol is described there) and wait for the result.

    The process has a session of its own, so that Ctrl-C reaches only us; it is killed when we are
    interrupted and ends by itself when we are killed. Raises ProbeFailure for a measurement that failed,
    is incomplete, or took longer than ``timeout_s``.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    collector = Collector(tuple(request["tasks"]), report)
    with tempfile.TemporaryDirectory(prefix="probe-", dir=workdir) as scratch:
        request_file, stderr_file = Path(scratch, "request.json"), Path(scratch, "stderr.txt")
        request_file.write_text(json.dumps(dict(request)), encoding="utf-8")
        code, timed_out = _run(python, request_file, stderr_file, collector, timeout_s)
        why = f"took longer than {timeout_s:g} s" if timed_out and timeout_s else abnormal_exit(code)
        return whole(collector, why, tail(stderr_file))


def whole(collector: Collector, why: str | None, said: str) -> ProbeResult:
    """The result, or a ProbeFailure: ``why`` the process ended abnormally, None where it did not, what is missing, and
    what it ``said`` last."""
    if collector.error is None:
        facts = "; ".join(part for part in (why, collector.missing()) if part)
        if facts:
            raise ProbeFailure(f"probe: {facts}{f'; it last said: {said}' if said else ''}")
    return collector.result()


def _run(
    python: str, request_file: Path, stderr_file: Path, collector: Collector, timeout_s: float | None
) -> tuple[int, bool]:
    """Exit status and whether the time was up."""
    timed_out = threading.Event()
    with stderr_file.open("wb") as stderr:
        process = subprocess.Popen(
            [python, *_OPTIONS, "-m", "objectives.probe", str(request_file), "--parent-pipe"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            env=_environment(), start_new_session=True, encoding="utf-8",
        )

        def time_is_up() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(timeout_s, time_is_up) if timeout_s else None
        try:
            if timer:
                timer.start()
            for line in process.stdout or ():
                # A line without an end was cut by the death of the process.
                if line.endswith("\n"):
                    collector.feed(event_of(line))
            return process.wait(), timed_out.is_set()
        finally:
            if timer:
                timer.cancel()
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()


def _environment() -> dict[str, str]:
    home = str(Path(objectives.__file__).parent.parent)
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{home}{os.pathsep}{path}" if path else home}


def event_of(line: str) -> dict[str, Any]:
    """A line of the probe's output. Raises ProbeFailure where it is no event."""
    try:
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            return event
    except ValueError:
        pass
    raise ProbeFailure(f"probe: its output holds {line.strip()[:80]!r}; accepted: events as JSON objects")


def abnormal_exit(code: int) -> str | None:
    """What a process's exit code, negative for a signal, says as part of a sentence; None for 0."""
    if code == -signal.SIGKILL:
        return f"killed by signal {signal.SIGKILL.value} (out of memory?)"
    if code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with exit code {code}" if code else None


def tail(stderr_file: Path, lines: int = 4) -> str:
    """The last lines of what a process printed, as one."""
    text = stderr_file.read_text(encoding="utf-8", errors="replace")
    last = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
    return " | ".join(last)[-600:]
