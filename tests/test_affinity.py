"""Which cores a process is kept on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from objectives.affinity import best

ROOT = Path(__file__).parents[1]


def cores(folder: Path, siblings: dict[int, str], **numbers: dict[int, int]) -> Path:
    """A folder as Linux has it at /sys/devices/system/cpu; ``numbers`` are files of each core."""
    for core, listed in siblings.items():
        (folder / f"cpu{core}/topology").mkdir(parents=True)
        (folder / f"cpu{core}/topology/thread_siblings_list").write_text(f"{listed}\n")
        for name, of in numbers.items():
            (folder / f"cpu{core}/{name}").write_text(f"{of[core]}\n")
    return folder


def test_a_second_hardware_thread_of_a_core_comes_last(tmp_path: Path) -> None:
    found = cores(tmp_path, {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"})
    assert best({0, 1, 2, 3}, 2, found) == [0, 2]
    assert best({0, 1, 2, 3}, 3, found) == [0, 1, 2]
    assert best({1, 2, 3}, 2, found) == [1, 2]  # its sibling is not ours
    apart = cores(tmp_path / "apart", {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"})
    assert best({0, 1, 2, 3}, 2, apart) == [0, 1]


def test_big_cores_come_before_small_ones(tmp_path: Path) -> None:
    alone = {core: str(core) for core in range(4)}
    board = cores(tmp_path, alone, cpu_capacity={0: 400, 1: 400, 2: 1024, 3: 1024})
    assert best({0, 1, 2, 3}, 2, board) == [2, 3]
    assert best({0, 1, 2, 3}, 3, board) == [0, 2, 3]


def test_a_system_that_tells_nothing_gives_the_first_ones(tmp_path: Path) -> None:
    assert best({7, 4, 5}, 2, tmp_path) == [4, 5]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the call")
def test_a_process_and_its_later_threads_are_bound_where_that_leaves_cores_out() -> None:
    usable = len(os.sched_getaffinity(0))
    code = (
        "import json, os, sys, threading\nfrom objectives.affinity import pin\n"
        "chosen = pin(int(sys.argv[1])); seen = []\n"
        "t = threading.Thread(target=lambda: seen.extend(os.sched_getaffinity(0))); t.start(); t.join()\n"
        "print(json.dumps([chosen, seen]))"
    )

    def bound(threads: int) -> tuple[list[int] | None, list[int]]:
        done = subprocess.run([sys.executable, "-c", code, str(threads)], capture_output=True, text=True, cwd=ROOT,
                              check=True)
        chosen, seen = json.loads(done.stdout)
        return chosen, seen

    for threads in (usable, usable + 3):
        chosen, seen = bound(threads)
        assert chosen is None
        assert len(seen) == usable
    if usable > 1:
        chosen, seen = bound(1)
        assert chosen == seen
        assert len(seen) == 1
