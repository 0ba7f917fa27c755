"""The other end of an SSH connection: keeps artifacts and starts the probe, for as long as someone is connected.

``python -m objectives.device.agent ROOT`` reads commands from stdin and answers on stdout, a JSON object a line. It
listens nowhere. It ends, and the probe with it, when stdin is closed or nothing came for ``SILENCE_S``: a connection
that was cut without a word must not keep the device's lock. Everything it writes lies under ROOT.

Commands, and the events that answer them; the first event comes unasked::

                                        {"event": "ready", "code", "root", "python", "facts"}   # code: its digest
    {"do": "beat"}                      nothing: the other side is still there
    {"do": "facts"}                     {"event": "facts", "facts": {"lasting", "now"}, "kept": {"bytes", "artifacts"}}
    {"do": "providers"}                 {"event": "providers", "found": {"cpu": true, …}, "problem": text or null}
    {"do": "lock", "who"}               {"event": "waiting", "who", "since"} at most once, {"event": "locked"}
    {"do": "need", "artifacts", "quota"}    {"event": "needed", "send": {sha256: {"size", "offset"}}, "to", "room"}
    {"do": "take", "sha256"}            {"event": "taken", "ok"}                       # ok: its contents are as named
    {"do": "place", "artifacts"}        {"event": "placed", "folders": {name: path}}
    {"do": "probe", "request"}          the probe's events, {"event": "exit", "code", "said", "facts"}

A command that cannot be carried out is answered with {"event": "failed", "do", "reason"}. The lock is this process's:
one measurement at a time on a device, whoever asks for it.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from objectives.device.depot import Depot, folder_digest
from objectives.device.facts import facts

SILENCE_S = 60.0
_POLL_S = 0.2
_SAID_LINES = 6
_PACKAGE = Path(__file__).parents[1]
_ASK_PROVIDERS = """
import json, os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy, psutil, onnxruntime_genai as og
print(json.dumps({"cpu": True, "cuda": bool(og.is_cuda_available()), "dml": bool(og.is_dml_available())}))
"""


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        print("usage: python -m objectives.device.agent ROOT", file=sys.stderr)
        return 2
    root = Path(argv[0])
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    agent = Agent(root)
    emit("ready", code=code_digest(), root=str(root), python=sys.executable, facts=facts(root))
    agent.serve()
    return 0


def code_digest() -> str:
    """Of the package that this file is of: of what is there, not of what should be."""
    return folder_digest(_PACKAGE, [str(path.relative_to(_PACKAGE)) for path in _PACKAGE.rglob("*.py")])


def emit(event: str, **fields: Any) -> None:
    line = json.dumps({"event": event, **fields}, ensure_ascii=False) + "\n"
    sys.stdout.buffer.write(line.encode())
    sys.stdout.buffer.flush()


class Agent:
    """Carries out one command after the other."""

    def __init__(self, root: Path) -> None:
        self._root, self._lock = root, -1
        self._child: subprocess.Popen[bytes] | None = None
        self._commands: queue.Queue[dict[str, Any]] = queue.Queue()
        self._depot: Depot | None = None

    def serve(self) -> None:
        """Until the other side is gone; does not return."""
        ways: dict[str, Callable[..., None]] = {
            "facts": self._facts, "providers": self._providers, "lock": self._take_lock, "need": self._need,
            "take": self._take, "place": self._place, "probe": self._probe}
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            command = self._commands.get()
            name = str(command.pop("do", None))
            try:
                ways[name](**command)
            except (OSError, ValueError, KeyError, TypeError) as error:
                told = error.strerror if isinstance(error, OSError) and error.strerror else f"{error}"
                emit("failed", do=name, reason=f"{type(error).__name__}: {told}")

    def _listen(self) -> None:
        pending = b""
        try:
            while select.select([0], [], [], SILENCE_S)[0] and (chunk := os.read(0, 1 << 16)):
                *lines, pending = (pending + chunk).split(b"\n")
                for command in map(json.loads, lines):
                    if command["do"] != "beat":
                        self._commands.put(command)
        finally:
            if self._child:
                self._child.kill()
            os._exit(1)

    def _facts(self) -> None:
        emit("facts", facts=facts(self._root), kept=Depot(self._root).kept())

    def _providers(self) -> None:
        """In a process of its own: libraries for other hardware end the process that loads them."""
        done = subprocess.run([sys.executable, "-P", "-c", _ASK_PROVIDERS], capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL)
        if done.returncode:
            emit("providers", found={}, problem=_last(done.stderr) or f"ended with exit code {done.returncode}")
        else:
            emit("providers", found=json.loads(done.stdout), problem=None)

    def _take_lock(self, who: str) -> None:
        """Held until this process ends. The kernel's: whatever ends it frees the lock."""
        path, told = self._root / "lock", False
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    told = True
                    emit("waiting", **_holder(path))
                time.sleep(_POLL_S)
        for left in self._root.glob("probe-*"):  # by one that was killed
            shutil.rmtree(left)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, json.dumps({"who": who, "since": time.time()}).encode(), 0)
        self._depot = Depot(self._root)
        emit("locked")

    def _need(self, artifacts: Mapping[str, Any], quota: int) -> None:
        depot = self._held()
        send = depot.missing(artifacts)
        room = depot.make_room(artifacts, send, quota)
        emit("needed", send=send, to=str(depot.incoming), room=vars(room))

    def _take(self, sha256: str) -> None:
        emit("taken", ok=self._held().take(sha256))

    def _place(self, artifacts: Mapping[str, Any]) -> None:
        emit("placed", folders={name: str(path) for name, path in self._held().place(artifacts).items()})

    def _probe(self, request: Mapping[str, Any]) -> None:
        """The probe writes its events to our stdout itself: whoever passed them on would take part of the machine."""
        self._held()
        with tempfile.TemporaryDirectory(prefix="probe-", dir=self._root) as scratch:
            file, said = Path(scratch, "request.json"), Path(scratch, "stderr.txt")
            file.write_text(json.dumps(request), encoding="utf-8")
            with said.open("wb") as stderr:
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-m", "objectives.probe", str(file), "--parent-pipe"],
                    stdin=subprocess.PIPE, stderr=stderr)
                code = self._child.wait()
            self._child = None
            text = said.read_text(encoding="utf-8", errors="replace")
        emit("exit", code=code, said=_last(text), facts=facts(self._root))

    def _held(self) -> Depot:
        if self._depot is None:
            raise ValueError("the device's lock is not held")
        return self._depot


def _holder(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"who": found.get("who"), "since": found.get("since")}
    return {"who": None, "since": None}


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-_SAID_LINES:])[-800:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
