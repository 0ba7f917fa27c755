"""What gc frees and what it never does: the plan on plain values, the rest on a real store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from autotune.cli import app
from autotune.errors import ConfigError, StudyError
from autotune.storage import run_registry
from autotune.storage.entry_key import Key, make_key
from autotune.storage.garbage import Held, Run, disk_bytes, parse_size, plan, reclaimable
from autotune.storage.manifest import StoredFile
from autotune.storage.store import Store, Stored

REPOSITORY = Path(__file__).parents[1]


def entry(name: str, size: int = 100, used: float = 0.0, shared: tuple[StoredFile, ...] = ()) -> Stored:
    own = StoredFile((1, hash(name)), size, 1)
    return Stored(Key("artifact", name), Path(name), size, used, used, (own, *shared))


def run(*names: str, active: bool = False, started: float = 1000.0, exists: bool = True) -> Run:
    return Run(Path("runs") / "-".join(names), exists, active, started, frozenset(Key("artifact", n) for n in names))


def planned(entries: list[Stored], runs: list[Run], max_size: int | None = None, busy: str = "") -> list[str]:
    held = Held(tuple(entries), tuple(runs), frozenset(Key("artifact", n) for n in busy))
    return [key.digest for key in plan(held, max_size)]


def test_what_no_run_reaches_goes() -> None:
    entries = [entry("a"), entry("b"), entry("c")]
    assert planned(entries, [run("a"), run("a", "c")]) == ["b"]
    assert planned(entries, []) == ["a", "b", "c"]


def test_what_is_busy_or_young_beside_an_active_run_stays() -> None:
    entries = [entry("a"), entry("b"), entry("new", used=1001)]
    assert planned(entries, [run("x", active=True, started=1000)], busy="b") == ["a"]
    assert planned(entries, [run("x", started=1000)]) == ["a", "b", "new"]


def test_a_size_frees_the_least_recently_used_first_and_no_more_than_needed() -> None:
    entries = [entry("a", used=3), entry("b", used=1), entry("c", used=2), entry("garbage", used=9)]
    both = [run("a", "b", "c")]
    assert planned(entries, both, max_size=300) == ["garbage"]
    assert planned(entries, both, max_size=299) == ["b", "garbage"]
    assert planned(entries, both, max_size=100) == ["b", "c", "garbage"]
    assert planned(entries, both, max_size=0) == ["b", "c", "a", "garbage"]


def test_a_small_entry_is_spared_when_a_larger_one_must_go_too() -> None:
    entries = [entry("small", 1, used=1), entry("large", 1000, used=2), entry("other", 1000, used=3)]
    assert planned(entries, [run("small", "large", "other")], max_size=1500) == ["large"]


def test_a_size_never_costs_an_active_run_anything() -> None:
    entries = [entry("a"), entry("b")]
    assert planned(entries, [run("a", active=True), run("b")], max_size=0) == ["b"]


def test_an_entry_whose_files_others_link_frees_only_its_own() -> None:
    file = StoredFile((1, 1), 1000, 2)
    template, artifact, other = (entry(n, 10, used, (file,) * linked) for n, used, linked in (
        ("template", 1, 1), ("artifact", 2, 1), ("other", 3, 0)))
    assert disk_bytes([template, artifact, other]) == 1030
    assert reclaimable(template.files) == 10
    assert reclaimable(template.files + artifact.files) == 1020
    # The template alone does not make 1000 bytes free, so its artifact goes as well.
    assert planned([template, artifact, other], [run("template", "artifact", "other")], max_size=500) == [
        "template", "artifact"]


names = st.sampled_from("abcdefgh")


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.dictionaries(names, st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1),
    shared=st.sets(names), reached=st.sets(names), active=st.sets(names), busy=st.sets(names),
    started=st.integers(0, 20), max_size=st.none() | st.integers(0, 300),
)
def test_whatever_the_store_holds_the_plan_keeps_its_word(
    sizes: dict[str, tuple[int, int]], shared: set[str], reached: set[str], active: set[str], busy: set[str],
    started: int, max_size: int | None,
) -> None:
    common = StoredFile((2, 2), 40, len(shared))
    entries = [entry(n, size, used, (common,) if n in shared else ()) for n, (size, used) in sizes.items()]
    runs = [run(*reached), run(*active, active=True, started=started)] if active else [run(*reached)]
    freed = set(planned(entries, runs, max_size, "".join(busy)))
    free = {n for n, (_, used) in sizes.items()
            if n not in busy | active and not (active and used >= started)}
    assert freed <= free
    assert {n for n in free if n not in reached} <= freed
    if max_size is None:
        assert not freed & reached
        return
    rest = disk_bytes(e for e in entries if e.key.digest not in freed)
    assert rest <= max_size or freed == free
    if rest <= max_size:  # nothing that a run reaches goes without need
        for name in freed & reached:
            assert disk_bytes(e for e in entries if e.key.digest not in freed - {name}) > max_size


@pytest.mark.parametrize(("text", "size"), [
    ("500MB", 500_000_000), ("5GB", 5_000_000_000), ("1.5GiB", 1_610_612_736), ("12 kb", 12_000), ("0B", 0)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "GB", "-5GB", "5XB", "1e9B", "5GB more", "٥GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


class Disk:
    """A store with made entries, and run folders beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "store")

    def make(self, stage: str, name: str, size: int = 1000, used: float | None = None) -> Key:
        key = make_key(stage, 1, {"name": name})
        made = self.store.make(key, lambda out: (out / "file").write_bytes(bytes(size)))
        if used is not None:
            os.utime(made.path / "manifest.json", (used, used))
        return key

    def run(self, name: str, *keys: Key, torn: bool = False) -> Path:
        folder = self.root / name
        folder.mkdir()
        events = [{"time": time.time(), "event": "run_start"},
                  *({"event": "stage_end", "stage": k.stage, "key": str(k), "cached": False} for k in keys)]
        text = "".join(json.dumps(e) + "\n" for e in events) + '{"event": "stage_start", "key": "ada' * torn
        (folder / "events.jsonl").write_text(text)
        (folder / ".lock").touch()
        run_registry.register(self.store.root, folder)
        return folder

    def gc(self, *arguments: str) -> str:
        done = CliRunner().invoke(app, ["gc", "--store", str(self.store.root), *arguments], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.gc("--json", *arguments))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_gc_frees_what_no_run_names_and_says_what_is_held(disk: Disk) -> None:
    kept, garbage = disk.make("adapter", "kept"), disk.make("artifact", "garbage", 5000)
    folder = disk.run("one", kept, torn=True)
    gone = disk.run("two", garbage)
    for path in gone.iterdir():
        path.unlink()
    gone.rmdir()
    before = disk.json("--dry-run")
    assert before["dry_run"]
    assert before["freed"]["keys"] == [str(garbage)]
    assert {stage: s["entries"] for stage, s in before["stages"].items()} == {"adapter": 1, "artifact": 1}
    assert disk.store.get(garbage) is not None
    text = disk.gc()
    assert str(folder) in text
    assert f"{gone} (gone)" in text
    assert "freed 1 entry, 5." in text
    assert "1 entry, 1." in text.splitlines()[-1]
    assert text.splitlines()[-1].endswith("is held by 1 run")
    assert disk.store.get(garbage) is None
    assert disk.store.get(kept) is not None
    assert [r.path for r in run_registry.registered(disk.store.root)] == [folder]


def test_an_active_run_keeps_its_entries_and_the_young_ones(disk: Disk) -> None:
    old = disk.make("adapter", "old", used=1000)
    manifest = disk.store.path(old) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"created": 1000.0}))
    os.utime(manifest, (1000, 1000))
    named = disk.make("adapter", "named", used=1000)
    folder = disk.run("one", named)
    young = disk.make("adapter", "young")
    with FileLock(folder / ".lock"):
        found = disk.json("--max-size", "0B")
        assert found["runs"][0]["active"]
        assert found["freed"]["keys"] == [str(old)]
        assert "larger than 0 B" in disk.gc("--max-size", "0B")
    assert disk.json()["freed"]["keys"] == [str(young)]
    assert disk.json("--max-size", "0B")["freed"]["keys"] == [str(named)]


def test_down_to_a_size_the_least_recently_used_goes_first(disk: Disk) -> None:
    keys = [disk.make("artifact", str(n), 10_000, used=1000 + n) for n in range(3)]
    disk.run("one", *keys)
    found = disk.json("--max-size", "24kB")
    assert found["freed"]["keys"] == [str(keys[0])]
    assert found["held"]["bytes"] <= 24_000


def test_an_entry_that_is_being_made_is_left_alone(disk: Disk) -> None:
    key = disk.make("adapter", "busy")
    with disk.store._locked(key):
        assert disk.json()["freed"]["keys"] == []
    assert disk.json()["freed"]["keys"] == [str(key)]


def test_freed_bytes_leave_out_what_a_run_folder_links(disk: Disk) -> None:
    key = disk.make("artifact", "linked", 50_000)
    os.link(disk.store.path(key) / "file", disk.root / "kept")
    found = disk.json()
    assert found["freed"]["keys"] == [str(key)]
    assert found["freed"]["bytes"] < 50_000


def test_damaged_entries_and_those_of_another_format_go(disk: Disk) -> None:
    damaged, old = disk.make("adapter", "damaged"), disk.make("adapter", "old")
    (disk.store.path(damaged) / "file").unlink()
    disk.store.get(damaged)
    (disk.store.path(old) / "manifest.json").write_text('{"files": {}}')
    disk.run("one", damaged, old)
    assert disk.json("--dry-run")["leftovers"]["entries"] == 2
    assert "damaged or of another format" in disk.gc()
    assert list((disk.store.root / "adapter").iterdir()) == []


def test_a_folder_that_is_no_store_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "manifest.json").write_text("{}")
    disk = Disk(tmp_path)
    disk.store.root = folder
    assert disk.json()["freed"]["entries"] == 0
    assert (folder / "a" / "b" / "manifest.json").exists()


def test_what_the_user_got_wrong_is_said(disk: Disk) -> None:
    with pytest.raises(ConfigError, match=r"--max-size: '5XB'; accepted: a size such as 500MB") as wrong:
        disk.gc("--max-size", "5XB")
    assert wrong.value.problems[0].where == ""
    disk.store.root = disk.root / "nowhere"
    with pytest.raises(ConfigError, match="no such folder"):
        disk.gc()
    assert not disk.store.root.exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a file that cannot be read")
def test_a_run_that_cannot_be_read_stops_it(disk: Disk) -> None:
    key = disk.make("adapter", "a")
    (disk.run("one", key) / "events.jsonl").chmod(0)
    with pytest.raises(StudyError, match="cannot be told"):
        disk.gc()
    assert disk.store.get(key) is not None


def test_the_command_runs_without_torch(tmp_path: Path) -> None:
    code = ("import sys; from autotune.cli import main; sys.argv = ['autotune', 'gc', '--store', sys.argv[1]]\n"
            "try: main()\n"
            "finally: assert not {'torch', 'transformers', 'optuna'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=REPOSITORY, capture_output=True, text=True,
                          check=True, timeout=60)
    assert done.stdout == "freed 0 entries, 0 B; 0 entries, 0 B are held by 0 runs\n"
