"""The program that measures one artifact, in a process of its own, here or on a device.

``python -m objectives.probe REQUEST.json [--parent-pipe]`` prints JSON lines to stdout and nothing else.
With ``--parent-pipe`` it ends as soon as its stdin is closed, and so with the process at the other end.

Request (protocol 3; tasks run in their order)::

    {"protocol": 3, "artifact": FOLDER, "provider": "cpu", "provider_options": {}, "threads": 2,
     "min_generator_length": 0,      # some models need a generator of at least this many tokens
     "tasks": [                      # a choice or generate task may have "texts": [text], "chat": false for "prompts"
       {"kind": "choice", "prompts": [[ids]], "labels": [[ids]], "eos_id": 1,
        "expected": [label], "stop": [[rows, at_most_right]]},     # both or neither; rows increasing
       {"kind": "generate", "prompts": [[ids]], "max_new_tokens": n, "stop_ids": [], "stop_strings": []},
       {"kind": "latency", "prompts": [[ids]], "new_tokens": n, "ignore_eos": true, "stop_ids": [],
        "samples": s, "max_seconds": t,      # at most one latency task; what follows may be left out
        "reference": {"artifact": FOLDER, "min_generator_length": 0}, "resident": true, "sustain_seconds": 0}]}

Texts are encoded by the artifact's own tokenizer and what mends it (`objectives.texts`), as on the device.

A choice task with ``stop`` ends once at most ``at_most_right`` of its first ``rows`` rows are right. Rows are
answered in their order, except that those between two looks, or all where there are none, come in any order.
Where a choice task is the last one, its rows may be answered by a way that takes less time and gives the same
labels (`objectives.scoring`); its memory is then that of one at a time: the peak after its longest prompt.

A latency task warms up until its times are flat, loads the machine for ``sustain_seconds`` and then times ``samples``
requests that nothing disturbed (`objectives.interleave`); ``max_seconds`` bound all of it but the sustained load, yet
one round is always made. With a ``reference``, in the last task alone, blocks of it lie between those of the artifact.
Both models are open together, or where they are not ``resident`` each is opened anew for its blocks. The task's memory
is the artifact's: the peak after its warm-up. The process keeps to as many cores as it has threads (``affinity``).

Events, one a line; ``task`` is the index into ``tasks``, ``row`` the index into its prompts::

    {"event": "start", "protocol": 3, "pid", "versions": {...}, "machine": {...},
     "settings": {"provider", "provider_options", "threads", "affinity": [cores] or null}, "temperature_c"}
    {"event": "loaded", "load_ms", "device"}             # reading the artifact; imports are not in it
    {"event": "prediction", "task", "row", "label"}      # index into labels
    {"event": "generation", "task", "row", "ids", "text"}
    {"event": "stopped", "task", "rows", "right"}        # of the first ``rows`` rows; no later ones follow
    {"event": "warmed", "task", "of", "requests", "flat"}       # of: artifact or reference, here and below
    {"event": "block", "task", "block", "of", "round", "at", "seconds", "requests",     # block, round: counted from 0
     "outside_cores", "steal", "mhz", "temperature_c", "throttled", "disturbed"}    # null where the system is silent
    {"event": "sample", "task", "of", "block", "prompt_tokens", "new_tokens", "ttft_ms", "token_ms", "latency_ms"}
    {"event": "progress", "task", "done", "total"}       # at most every half second
    {"event": "memory", "task", "peak_rss_mb"}           # the process's peak, after the task or as said above
    {"event": "end", "ok": true, "temperature_c"}        # without it the measurement is not whole
    {"event": "error", "stage": "request|load|task N", "reason"}    # then exit code 1
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from objectives import session
from objectives.accuracy import build_trie, generate
from objectives.affinity import pin
from objectives.board import temperature_c
from objectives.interleave import Interleaver
from objectives.machine import machine, versions
from objectives.memory import peak_rss_mb
from objectives.models import Models
from objectives.request import PROTOCOL, ChoiceTask, GenerateTask, Ids, LatencyTask, Request, Task, read_request
from objectives.scoring import Scorer, Way
from objectives.texts import encode

Emit = Callable[..., None]


def main(argv: list[str]) -> int:
    arguments = [a for a in argv if a != "--parent-pipe"]
    if len(arguments) != 1:
        print("usage: python -m objectives.probe REQUEST.json [--parent-pipe]", file=sys.stderr)
        return 2
    emit = _take_stdout()
    if "--parent-pipe" in argv:
        threading.Thread(target=_die_with_parent, daemon=True).start()
    stage = "request"
    try:
        request = read_request(Path(arguments[0]))
        stage = "load"
        models = Models(request)
        _load(request, models, emit)
        for i, task in enumerate(request.tasks):
            stage = f"task {i}"
            last = i == len(request.tasks) - 1
            _run_task(i, task, request.artifact, models, emit, last=last)
    except Exception as error:  # noqa: BLE001 - whatever it was, the reader must learn the stage and the reason
        emit("error", stage=stage, reason=_one_sentence(error))
        return 1
    emit("end", ok=True, temperature_c=temperature_c())
    return 0


def _take_stdout() -> Emit:
    """Keep the real stdout for the events and point file descriptor 1, which the native libraries write
    to as well, at stderr."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)

    def emit(event: str, **fields: Any) -> None:
        stream.write(json.dumps({"event": event, **fields}, ensure_ascii=False, allow_nan=False) + "\n")
        stream.flush()

    return emit


def _die_with_parent() -> None:
    # os.read and not sys.stdin: a thread inside a buffered read is a fatal error at interpreter exit.
    while os.read(0, 4096):
        pass
    os._exit(1)


def _load(request: Request, models: Models, emit: Emit) -> None:
    about = machine()  # before the cores are fewer
    settings = {"provider": request.provider, "provider_options": request.provider_options,
                "threads": request.threads, "affinity": pin(request.threads)}
    emit(
        "start", protocol=PROTOCOL, pid=os.getpid(),
        versions=versions(session.genai_version()), machine=about, settings=settings, temperature_c=temperature_c(),
    )
    start = time.perf_counter_ns()
    model = models.use("artifact")
    emit("loaded", load_ms=(time.perf_counter_ns() - start) / 1e6, device=str(model.device_type))


def _run_task(index: int, task: Task, artifact: Path, models: Models, emit: Emit, *, last: bool) -> None:
    say = partial(emit, task=index)
    progress = _Progress(say)
    if isinstance(task, LatencyTask):
        Interleaver(task, models, say, progress).run()
        return
    model, min_length, peak = models.use("artifact"), models.min_length("artifact"), None
    prompts = task.asked.prompts or encode(session.tokenizer(model), artifact, task.asked.texts, chat=task.asked.chat)
    if isinstance(task, ChoiceTask):
        # What a batch leaves behind in memory must not count for a task after it.
        scorer = _scorer(task, prompts, model, min_length, force=None if last else "alone")
        if last:
            scorer.answer_longest()
            peak = peak_rss_mb()
        _choice(task, scorer, say, progress)
    else:
        _generate(task, prompts, model, min_length, say, progress)
    say("memory", peak_rss_mb=peak or peak_rss_mb())


class _Progress:
    def __init__(self, say: Emit) -> None:
        self._say, self._last = say, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= 0.5:
            self._last = now
            self._say("progress", done=done, total=total)


def _scorer(
    task: ChoiceTask, prompts: Sequence[Ids], model: Any, min_length: int, force: Way | None
) -> Scorer:
    trie = build_trie(task.labels, task.eos_id)
    return Scorer(model, prompts, trie, min_length, looks=[rows for rows, _ in task.stop], force=force)


def _choice(task: ChoiceTask, scorer: Scorer, say: Emit, progress: _Progress) -> None:
    total, done, answered, right = len(task.asked), 0, 0, 0
    for until, at_most_right in (*task.stop, (total, -1)):
        for row, label in scorer.answer(range(done, until)):
            say("prediction", row=row, label=label)
            right += bool(task.expected) and task.expected[row] == label
            answered += 1
            progress(answered, total)
        done = until
        if right <= at_most_right:
            say("stopped", rows=done, right=right)
            return


def _generate(
    task: GenerateTask, prompts: Sequence[Ids], model: Any, min_length: int, say: Emit, progress: _Progress
) -> None:
    tokenizer = session.tokenizer(model)
    for row, prompt in enumerate(prompts):
        answer = generate(
            model, tokenizer, prompt, task.max_new_tokens,
            stop_ids=task.stop_ids, stop_strings=task.stop_strings, min_generator_length=min_length,
        )
        say("generation", row=row, ids=answer.ids, text=answer.text)
        progress(row + 1, len(prompts))


def _one_sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    # Everything is flushed: leave without tearing down the native library, which some of its providers do
    # not survive.
    os._exit(code)
