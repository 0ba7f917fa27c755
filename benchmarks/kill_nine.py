"""What SIGKILL at any moment costs a study: the stage that it fell into, and nothing else.

    python benchmarks/kill_nine.py [--kills 30] [--seed 0] [--work DIR] [--record]

One study on a tiny model runs to its end, and then again in another run folder and store, where its main process is
killed at random moments, with the same command after each kill, until it ends by itself. (Where it ends before all
kills are spent, the rest fall on one more such run.) The second store is given the first one's latencies, the one thing
that two runs measure differently; all else must come out the same to the last digit. Exit code 1 where it does not.
With --record a summary is appended to RESULTS.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from autotune.storage.store import Store
from benchmarks.record import record
from benchmarks.run_tables import Row, chosen, finished, interrupted, proposals, table, trials
from tests import studies

MARK = "KILL_NINE"
_SETTLE_S = 10.0
_POLL_S = 0.005
Event = Mapping[str, Any]


@dataclass(frozen=True)
class Moment:
    """``after`` seconds after ``ended`` stages have ended; from ``boot``: after that or the start, what is later."""

    ended: int
    after: float
    boot: bool


@dataclass(frozen=True)
class Kill:
    """``key`` is that of the stage it fell into, if it did; ``complete`` counts trials in study.db."""

    seconds: float
    stage: str
    key: str | None
    complete: int
    pruned: int
    outlived_s: float | None


@dataclass
class Pass:
    """One run that was killed until it ended, and every way in which it went wrong."""

    kills: list[Kill] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    interrupted: int = 0


@dataclass(frozen=True)
class Place:
    """A run of the study: its folder, its store, and the machine lock that all of them share."""

    study: Path
    out: Path
    store: Path

    def start(self, mark: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "autotune", "run", str(self.study), "--out", str(self.out), "--store",
                   str(self.store)]
        own = {MARK: mark, "AUTOTUNE_MACHINE_LOCK": str(self.study.parent / "machine-lock")}
        with (self.out.parent / f"{self.out.name}.log").open("ab") as log:
            return subprocess.Popen(command, env={**studies.environment(), **own}, cwd=self.study.parent,
                                    stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def events(self) -> list[Event]:
        return list(Tail(self.out / "events.jsonl").read())


class Tail:
    """The whole lines of events.jsonl that were written since one last looked."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def read(self) -> Iterator[Event]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                try:
                    yield json.loads(line)
                except ValueError:  # cut off by a kill
                    continue


def write_study(folder: Path, adapters: int, rows: int) -> Path:
    """A study with good and hopeless adapters, so that some trials are stopped early."""
    adapter = {**studies.study()["space"]["adapter"], "learning_rate": {"low": 1e-5, "high": 2e-2, "log": True}}
    deploy = [{"precision": ["int8", "int4"]}, {"precision": "int4", "block_size": 64}]
    path = studies.write_study(folder, space={"adapter": adapter, "deploy": deploy}, budget={"adapters": adapters})
    for split, seed in (("train", 0), ("valid", 1)):
        lines = (json.dumps(row) for row in studies.rows(rows, seed))
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return path


def ended(events: Sequence[Event]) -> dict[str, float]:
    """Keys of stages that ended, measurements of latency left out, and when they first did."""
    found: dict[str, float] = {}
    for event in events:
        if event["event"] == "stage_end" and event["stage"] != "probe":
            found.setdefault(event["key"], event["time"])
    return found


def moments(whole: Place, began: float, count: int, draw: random.Random) -> list[Moment]:
    """Instants of the unkilled run, evenly likely, in order."""
    ends = sorted(ended(whole.events()).values())
    last = max(e["time"] for e in whole.events())
    found = []
    for instant in sorted(draw.uniform(began, last) for _ in range(count)):
        before = [end for end in ends if end <= instant]
        found.append(Moment(len(before), instant - (before[-1] if before else began), draw.random() < 0.3))
    return found


def wait_for(moment: Moment, place: Place, process: subprocess.Popen[bytes]) -> bool:
    """True at the moment; False when the process ended before it came."""
    known, tail, fresh = place.events(), Tail(place.out / "events.jsonl"), 0
    list(tail.read())
    reached_before = len(ended(known)) >= moment.ended
    since = time.monotonic() if reached_before and moment.boot else None
    while process.poll() is None:
        new = list(tail.read())
        known, fresh = [*known, *new], fresh + len(new)
        if since is None and len(done := ended(known)) >= moment.ended:
            # Where an earlier process got as far, the clock starts when this one takes up new work.
            resumed = fresh and known[-1]["event"] == "stage_start" and known[-1]["key"] not in done
            if resumed or not reached_before or moment.ended == 0:
                since = time.monotonic()
        if since is not None and time.monotonic() - since >= moment.after:
            return True
        time.sleep(_POLL_S)
    return False


def where(events: Sequence[Event]) -> tuple[str, str | None]:
    """The stage that a process worked at last, and its key if it was in the middle of it."""
    if not events:
        return "start of the process", None
    last = events[-1]
    # Answers that hold for all rows get a second name, which is begun as soon as the first has ended.
    ends = [(e["event"], e.get("stage")) for e in events[-2:]]
    named = ends == [("stage_end", "answers"), ("stage_start", "answers")]
    if last["event"] == "stage_start" and not named:
        return last["stage"], last["key"]
    return ("preparation" if last["event"] == "run_start" else f"after {last['stage']}"), None


def relatives(mark: str) -> list[int]:
    """Processes that descend from the one started with this mark, however far."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def outlived(mark: str) -> float | None:
    """Seconds until the last relative of a killed process was gone; None when they stay."""
    since = time.monotonic()
    while relatives(mark):
        if time.monotonic() - since > _SETTLE_S:
            return None
        time.sleep(0.02)
    return time.monotonic() - since


def kill_until_done(place: Place, when: list[Moment]) -> Pass:
    """Kill at each moment of ``when``, taking it off the list, and go on; then leave the study to its end."""
    found, before = Pass(), dict[int, Row]()
    while True:
        mark, known = uuid.uuid4().hex, len(place.events())
        began, process = time.monotonic(), place.start(mark)
        if when and wait_for(when[0], place, process):
            when.pop(0)
            process.kill()
        code = process.wait()
        seconds, settled = time.monotonic() - began, outlived(mark)
        if settled is None:
            found.faults.append(f"processes outlived the run by {_SETTLE_S:g} s: {relatives(mark)}")
        now = finished(place.out)
        if lost := [n for n, held in before.items() if now.get(n) != held]:
            found.faults.append(f"kill {len(found.kills) + 1} took or changed finished trials {lost}")
        before = now
        if code != -9:
            if code:
                found.faults.append(f"exit code {code}; see {place.out}.log")
            return found
        stage, key = where(place.events()[known:])
        states = Counter(held[0] for held in now.values())
        found.kills.append(Kill(seconds, stage, key, states["COMPLETE"], states["PRUNED"], settled))


def judge(whole: Place, place: Place, found: Pass) -> None:
    """Hold what came of a killed run against the whole one; faults are added to ``found``."""
    say = found.faults.append
    if left := [str(p) for p in place.store.glob("*/.*") if p.parent.name[0] != "."]:
        say(f"left in the store: {left}")
    damaged = [str(p) for p in place.store.glob("*/*.damaged-*")]
    store = Store(place.store)
    entries = [e.key for e in store.entries()]
    damaged += [str(key) for key in entries if store.get(key, verify=True) is None]
    if damaged or not entries:
        say(f"damaged entries: {damaged or 'no entry at all'}")
    if left := [p.name for p in (*place.out.glob(".*"), *(place.out / "artifacts").glob(".*")) if p.name != ".lock"]:
        say(f"left in the run folder: {left}")
    for name, read in (("trials", table), ("proposals", proposals)):
        expected, got = read(whole.out), read(place.out)
        if expected != got:
            first = next((i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), "at the end")
            say(f"{name} differ ({len(got)} of {len(expected)}), first {first}")
    if not (place.out / "results.json").exists():
        say("no results.json")
    elif chosen(whole.out) != chosen(place.out):
        say(f"front or selection differ: {chosen(place.out)}, not {chosen(whole.out)}")
    if made := [e["key"] for e in place.events() if e["event"] == "stage_end" and e["stage"] == "probe"
                and not e["cached"]]:
        say(f"latency was measured anew, so its values cannot be compared: {made}")
    say_twice(whole, place, found)
    found.interrupted = sum(interrupted(t) for t in trials(place.out, "tiny"))


def named_alone(events: Sequence[Event]) -> set[str]:
    """Keys that are begun and never end: second names of answers that were stored just before."""
    return {e["key"] for e in events if e["event"] == "stage_start"} - {
        e["key"] for e in events if e["event"] == "stage_end"}


def say_twice(whole: Place, place: Place, found: Pass) -> None:
    """Work that was done twice though no kill fell into it."""
    named = named_alone(whole.events())
    events = [e for e in place.events() if e["event"] in ("stage_start", "stage_end")]
    begun = Counter(e["key"] for e in events if e["event"] == "stage_start")
    closed = Counter(e["key"] for e in events if e["event"] == "stage_end")
    killed = Counter(kill.key for kill in found.kills)
    if odd := [key for key in begun if begun[key] - closed[key] != killed[key] and key not in named]:
        found.faults.append(f"stages begun and not ended, without a kill in them: {odd}")
    made = Counter(e["key"] for e in events if e["event"] == "stage_end" and not e["cached"])
    again = [key for key, times in made.items() if times > 1 and not key.startswith("artifact/")]
    if again:  # an artifact's disk is freed once it is dominated
        found.faults.append(f"made twice: {again}")


def compare(work: Path, kills: int, seed: int, adapters: int = 8, rows: int = 240) -> tuple[list[Pass], Place]:
    """The whole run, and as many killed ones as it takes."""
    study = write_study(work, adapters, rows)
    whole, began = Place(study, work / "whole", work / "store-whole"), time.time()
    if code := whole.start("whole").wait():
        raise SystemExit(f"the unkilled run ended with exit code {code}; see {whole.out}.log")
    draw, passes, left = random.Random(seed), list[Pass](), kills
    while left:
        name = f"killed-{len(passes)}"
        place = Place(study, work / name, work / f"store-{name}")
        shutil.copytree(whole.store / "probe", place.store / "probe")
        found = kill_until_done(place, moments(whole, began, left, draw))
        judge(whole, place, found)
        passes.append(found)
        if not found.kills:
            found.faults.append("no kill came before the end")
            break
        left -= len(found.kills)
    return passes, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="an empty folder to work in, which stays; default: one that goes")
    parser.add_argument("--record", action="store_true", help="append a summary to RESULTS.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = (args.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        if any(work.iterdir()):
            parser.error(f"--work {work} is not empty")
        passes, whole = compare(work, args.kills, args.seed)
        states = Counter(r[0] for r in table(whole.out))
    show(passes, states, args)


def show(passes: Sequence[Pass], states: Counter[str], args: argparse.Namespace) -> None:
    print(f"{'run':>3} {'kill':>4} {'s into the process':>18}  {'stage':<22} {'complete':>8} {'pruned':>6} "
          f"{'workers outlived it by':>22}")
    for n, found in enumerate(passes):
        for i, k in enumerate(found.kills):
            gone = "10 s and more" if k.outlived_s is None else f"{k.outlived_s:.2f} s"
            print(f"{n:>3} {i + 1:>4} {k.seconds:>18.2f}  {k.stage:<22} {k.complete:>8} {k.pruned:>6} {gone:>22}")
    kills = [k for found in passes for k in found.kills]
    fell = ", ".join(f"{s} {c}" for s, c in Counter(k.stage for k in kills).most_common())
    faults = [f"run {n}: {fault}" for n, found in enumerate(passes) for fault in found.faults]
    sentence = (f"{len(kills)} kills over {len(passes)} runs of {states['COMPLETE']} complete and {states['PRUNED']} "
                f"early-stopped trials; {sum(p.interrupted for p in passes)} trials begun anew. ")
    sentence += (f"{len(faults)} faults." if faults else
                 "No damaged entry, no finished trial lost, no stage made twice unless the kill fell into it, no "
                 "process left; trials, proposals, front and selection equal those of the unkilled run.")
    print("\n".join([*faults, sentence]))
    if args.record:
        record("SIGKILL at random moments", f"python benchmarks/kill_nine.py --kills {args.kills} --seed {args.seed}",
               sentence, [f"The kills fell into: {fell}."])
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
