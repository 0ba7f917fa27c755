"""What a device keeps: by contents, within a quota, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from objectives.device.depot import Depot

QUOTA = 10_000


def about(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def files(**contents: bytes) -> dict[str, dict[str, Any]]:
    return {name: about(content) for name, content in contents.items()}


def put(depot: Depot, name: str, **contents: bytes) -> Path:
    """An artifact sent, taken and placed."""
    wanted = {name: files(**contents)}
    missing = depot.missing(wanted)
    assert depot.make_room(wanted, missing, QUOTA).short is None
    by_sha = {about(content)["sha256"]: content for content in contents.values()}
    for sha256 in missing:
        (depot.incoming / sha256).write_bytes(by_sha[sha256])
        assert depot.take(sha256)
    return depot.place(wanted)[name]


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path, reserve=0)


def test_what_is_there_is_not_sent_again(depot: Depot) -> None:
    folder = put(depot, "a", model=b"m" * 1000, config=b"{}")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"model": b"m" * 1000, "config": b"{}"}
    assert depot.missing({"a": files(model=b"m" * 1000, config=b"{}")}) == {}
    assert list(depot.missing({"b": files(model=b"m" * 1000, config=b"[]")})) == [about(b"[]")["sha256"]]
    other = put(depot, "b", model=b"m" * 1000, config=b"[]")
    assert (other / "model").samefile(folder / "model")
    assert depot.kept()["bytes"] < 2000


def test_a_new_artifact_takes_what_it_shares_with_one_that_is_asked_for_beside_it(depot: Depot) -> None:
    shared = put(depot, "a", model=b"m" * 1000, config=b"{}")
    both = {"a": files(model=b"m" * 1000, config=b"{}"), "b": files(model=b"m" * 1000, config=b"[]")}
    assert list(depot.missing(both)) == [about(b"[]")["sha256"]]
    (depot.incoming / about(b"[]")["sha256"]).write_bytes(b"[]")
    assert depot.take(about(b"[]")["sha256"])
    placed = depot.place(both)
    assert (placed["b"] / "model").samefile(shared / "model")
    assert list(depot.incoming.iterdir()) == []


def test_sending_goes_on_from_where_it_was(depot: Depot) -> None:
    whole = b"x" * 500
    (depot.incoming / about(whole)["sha256"]).write_bytes(whole[:200])
    assert depot.missing({"a": files(model=whole)}) == {about(whole)["sha256"]: {"size": 500, "offset": 200}}


def test_other_contents_are_not_taken_and_leave_nothing(depot: Depot) -> None:
    sha256 = about(b"right")["sha256"]
    (depot.incoming / sha256).write_bytes(b"wrong")
    assert not depot.take(sha256)
    assert list(depot.incoming.iterdir()) == []


def test_an_artifact_of_which_a_file_is_missing_is_not_placed(depot: Depot) -> None:
    with pytest.raises(FileNotFoundError, match="model: it has not been sent"):
        depot.place({"a": files(model=b"x")})
    assert not depot.folder("a").exists()


def test_a_name_that_leaves_the_folder_is_refused(depot: Depot) -> None:
    with pytest.raises(ValueError, match="leaves the artifact's folder"):
        depot.place({"a": {"../evil": about(b"x")}})


def test_the_one_used_longest_ago_goes_first_and_never_one_in_use(depot: Depot) -> None:
    for name in ("a", "b", "c"):
        put(depot, name, model=name.encode() * 3000)
    depot.place({"a": files(model=b"a" * 3000)})  # used again
    wanted = {"a": files(model=b"a" * 3000), "d": files(model=b"d" * 3500)}
    room = depot.make_room(wanted, depot.missing(wanted), QUOTA)
    assert room.removed == ("b",)
    assert room.short is None
    assert depot.kept()["artifacts"] == ["c", "a"]


def test_what_a_new_artifact_shares_with_one_that_goes_stays(depot: Depot) -> None:
    put(depot, "a", model=b"a" * 6000, config=b"{}")
    folder = put(depot, "b", model=b"b" * 6000, config=b"{}")
    assert (folder / "config").read_bytes() == b"{}"
    assert depot.kept()["artifacts"] == ["b"]


def test_two_of_one_request_may_share_a_file(depot: Depot) -> None:
    wanted = {"a": files(model=b"a", config=b"{}"), "b": files(model=b"b", config=b"{}")}
    for content in (b"a", b"b", b"{}"):
        (depot.incoming / about(content)["sha256"]).write_bytes(content)
    assert all(depot.take(sha256) for sha256 in depot.missing(wanted))
    placed = depot.place(wanted)
    assert (placed["a"] / "config").samefile(placed["b"] / "config")
    assert list(depot.incoming.iterdir()) == []


def test_what_cannot_fit_says_so_and_keeps_what_is_in_use(depot: Depot) -> None:
    put(depot, "a", model=b"a" * 3000)
    wanted = {"a": files(model=b"a" * 3000), "d": files(model=b"d" * 9000)}
    room = depot.make_room(wanted, depot.missing(wanted), QUOTA)
    assert room.short == "quota"
    assert depot.kept()["artifacts"] == ["a"]


def test_a_full_disk_is_told_from_a_full_quota(tmp_path: Path) -> None:
    depot = Depot(tmp_path, reserve=10**18)
    wanted = {"a": files(model=b"a")}
    assert depot.make_room(wanted, depot.missing(wanted), QUOTA).short == "disk"
    assert depot.make_room({}, {}, QUOTA).short is None  # nothing is to be sent


def test_parts_of_what_nobody_wants_go_before_artifacts(depot: Depot) -> None:
    put(depot, "a", model=b"a" * 3000)
    (depot.incoming / ("0" * 64)).write_bytes(b"p" * 5000)
    wanted = {"d": files(model=b"d" * 6000)}
    assert depot.make_room(wanted, depot.missing(wanted), QUOTA).removed == ()
    assert list(depot.incoming.iterdir()) == []


@pytest.mark.parametrize("damage", ["shorter", "gone", "record"])
def test_a_damaged_artifact_is_sent_again(depot: Depot, damage: str) -> None:
    folder = put(depot, "a", model=b"a" * 3000)
    if damage == "record":
        folder.with_name("a.json").write_text("{")
    elif damage == "gone":
        (folder / "model").unlink()
    else:
        (folder / "model").write_bytes(b"a" * 2999)
    assert list(depot.missing({"a": files(model=b"a" * 3000)})) == [about(b"a" * 3000)["sha256"]]


def test_what_lay_there_through_a_restart_is_read_again(depot: Depot) -> None:
    folder = put(depot, "a", model=b"a" * 3000)
    record = json.loads(folder.with_name("a.json").read_text())
    folder.with_name("a.json").write_text(json.dumps({**record, "boot": "an earlier one"}))
    assert depot.missing({"a": files(model=b"a" * 3000)}) == {}
    folder.with_name("a.json").write_text(json.dumps({**record, "boot": "an earlier one"}))
    (folder / "model").write_bytes(b"\0" * 3000)  # the right length, as a power cut leaves it
    assert depot.missing({"a": files(model=b"a" * 3000)}) != {}
    assert not folder.exists()


def test_what_a_killed_process_left_half_made_goes(depot: Depot) -> None:
    (depot.folder(".a.making")).mkdir()
    (depot.folder("b")).mkdir()  # renamed, and killed before its record was written
    depot.missing({})
    assert depot.kept() == {"bytes": 0, "artifacts": []}
    assert not depot.folder("b").exists()
