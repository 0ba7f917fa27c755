"""The device's end of a connection, as a process of its own: what it answers, and when it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.test_probe import ENDLESS, LATENCY, for_artifact

ROOT = Path(__file__).parents[1]


class Talk:
    """One agent, spoken to by hand."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.hello = self.event()

    def event(self) -> dict[str, Any]:
        assert self.process.stdout
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        self.tell(do, **fields)
        return self.event()

    def tell(self, do: str, **fields: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        self.process.stdin.flush()

    def hang_up(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()


@contextmanager
def agent(root: Path, *options: str, silence_s: float = 60.0) -> Iterator[Talk]:
    code = f"import objectives.device.agent as agent; agent.SILENCE_S = {silence_s}; agent.main([{str(root)!r}])"
    with subprocess.Popen([sys.executable, *options, "-P", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}) as process:
        try:
            yield Talk(process)
        finally:
            process.kill()


def probes_of(talk: Talk) -> list[psutil.Process]:
    return psutil.Process(talk.process.pid).children()


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def begun(talk: Talk) -> psutil.Process:
    """A probe that goes on for ever, once it measures."""
    assert talk.ask("lock", who="a")["event"] == "locked"
    talk.tell("probe", request=for_artifact(ENDLESS))
    while talk.event()["event"] != "block":
        pass
    return probes_of(talk)[0]


def eventually(true: Any) -> None:
    for _ in range(200):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to pass")


def test_it_needs_no_library_to_say_what_is_there(tmp_path: Path) -> None:
    with agent(tmp_path / "root", "-S") as talk:  # without site-packages
        lasting: Mapping[str, Any] = talk.hello["facts"]["lasting"]
        assert set(lasting["libraries"]) == {"numpy", "psutil", "onnxruntime", "onnxruntime-genai"}
        assert set(lasting["libraries"].values()) == {None}
        assert lasting["bits"] in (32, 64)
        assert talk.hello["facts"]["now"]["disk_free_mb"] > 0


def test_without_the_lock_nothing_is_kept_or_measured(tmp_path: Path) -> None:
    with agent(tmp_path) as talk:
        for command in ({"do": "need", "artifacts": {}, "quota": 1}, {"do": "probe", "request": {}}):
            assert talk.ask(**command) == {"event": "failed", "do": command["do"],
                                           "reason": "ValueError: the device's lock is not held"}


def test_what_it_does_not_know_it_says(tmp_path: Path) -> None:
    with agent(tmp_path) as talk:
        assert talk.ask("reboot") == {"event": "failed", "do": "reboot", "reason": "KeyError: 'reboot'"}
        assert talk.ask("facts")["event"] == "facts"


def test_a_second_one_waits_and_learns_for_whom(tmp_path: Path) -> None:
    with agent(tmp_path) as first, agent(tmp_path) as second:
        assert first.ask("lock", who="anna@laptop")["event"] == "locked"
        waiting = second.ask("lock", who="ben@desk")
        assert (waiting["event"], waiting["who"]) == ("waiting", "anna@laptop")
        first.process.kill()
        assert second.event() == {"event": "locked"}


def test_hanging_up_ends_the_probe(tmp_path: Path) -> None:
    with agent(tmp_path) as talk:
        probe = begun(talk)
        talk.hang_up()
        eventually(lambda: gone(probe))
        eventually(lambda: talk.process.poll() is not None)


def test_silence_ends_it_as_a_cable_that_was_pulled_says_nothing(tmp_path: Path) -> None:
    with agent(tmp_path, silence_s=1.5) as talk:
        for _ in range(4):
            time.sleep(0.5)
            talk.tell("beat")
        assert talk.process.poll() is None
        eventually(lambda: talk.process.poll() is not None)


def test_a_probe_that_ended_leaves_no_request_behind(tmp_path: Path) -> None:
    with agent(tmp_path) as talk:
        assert talk.ask("lock", who="a")["event"] == "locked"
        talk.tell("probe", request=for_artifact(LATENCY))
        while (event := talk.event())["event"] != "exit":
            pass
        assert (event["code"], event["said"]) == (0, "")
        assert [path.name for path in tmp_path.glob("probe-*")] == []


def test_what_a_killed_one_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "probe-left").mkdir()
    (tmp_path / "probe-left" / "request.json").write_text("{}")
    with agent(tmp_path) as talk:
        talk.ask("lock", who="a")
        assert not (tmp_path / "probe-left").exists()
