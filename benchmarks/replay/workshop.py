"""The folder that a recording works in: who does what, what is done, and what comes of it.

Every piece of work has a file that it ends in, written whole or not at all; a piece is claimed by a file that only
one process can make. So any number of processes share the work, one that dies costs its piece, and a recording that
was cut off goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.pipeline.recipe import is_out_of_memory
from autotune.pipeline.tokens import Example, TokenizedData
from benchmarks.replay.drawing import PIECES, Plan

#: Seconds that a piece of work is expected to take before one of its kind was done.
_FIRST_GUESS = {"judge": 30.0, "answer": 60.0}


@dataclass(frozen=True)
class Piece:
    """A piece of work, done when its file is there."""

    kind: str
    name: str
    done: Path
    do: Callable[[], None]


class Workshop:
    def __init__(self, root: Path, base: Path) -> None:
        self.root, self.base = root, base
        self.plan = Plan.load(root / "plan.json")
        self.data = TokenizedData.load(root / "data.json")

    @property
    def template(self) -> Path:
        return self.root / "template"

    def point(self, label: str) -> Path:
        return self.root / "points" / label

    def rung(self, adapter: int, rung: int) -> Path:
        """The adapter's folder after a rung, counted from 0."""
        return self.root / "adapters" / str(adapter) / str(rung)

    def training(self, adapter: int, rung: int) -> Path:
        return self.root / "training" / f"{adapter}-{rung}.json"

    def judged(self, adapter: int, rung: int) -> Path:
        return self.root / "judged" / f"{adapter}-{rung}.json"

    def answers(self, adapter: int, label: str, piece: int) -> Path:
        return self.root / "answers" / f"{adapter}-{label}-{piece}.json"

    def rows(self, piece: int) -> list[Example]:
        """The rows of a piece, in order: `PIECES`."""
        return list(self.data.test[PIECES[piece - 1] :: len(PIECES)] if piece else self.data.valid)

    def forget_claims(self) -> None:
        shutil.rmtree(self.root / "claims", ignore_errors=True)
        for unfinished in self.root.rglob("*.unfinished"):
            shutil.rmtree(unfinished, ignore_errors=True)

    def give_up(self, piece: Piece) -> None:
        """Let another process, or a later try, claim it."""
        (self.root / "claims" / piece.name).unlink(missing_ok=True)

    def claim(self, piece: Piece) -> bool:
        claims = self.root / "claims"
        claims.mkdir(exist_ok=True)
        try:
            os.close(os.open(claims / piece.name, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


def write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    beside.write_text(json.dumps(content), encoding="utf-8")
    beside.replace(file)


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def fresh_folder(final: Path) -> Path:
    """An empty folder to fill and then rename to ``final``."""
    beside = final.with_name(f"{final.name}.{os.getpid()}.unfinished")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    return beside


def work_off(shop: Workshop, offered: Callable[[], Iterator[Piece]], until: float, more: Callable[[], bool]) -> None:
    """Do pieces as they are offered, the first unclaimed one first, until ``until`` (epoch seconds).

    None is begun that is not expected to end by then. Ends when nothing is offered and no ``more`` is to come.
    """
    seconds = dict(_FIRST_GUESS)
    while True:
        last = not more()
        piece = next((p for p in offered() if time.time() + seconds.get(p.kind, 0.0) < until and shop.claim(p)), None)
        if piece is not None:
            began = time.time()
            try:
                piece.do()
            except Exception as error:  # noqa: BLE001 - it stays claimed, and the others go on
                traceback.print_exc()
                if is_out_of_memory(error):  # for the adapters in training took it
                    time.sleep(10)
                    shop.give_up(piece)
            seconds[piece.kind] = 1.2 * (time.time() - began)
        elif last or time.time() > until:
            return
        else:
            time.sleep(0.5)
