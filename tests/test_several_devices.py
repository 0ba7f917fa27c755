"""A study of several devices: one that is this machine's, one over SSH; and what is said when they differ."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from autotune.certifying import certificate
from autotune.certifying.certificate import Certificate, Evidence, certify
from autotune.certifying.everywhere import EveryDevice, merged
from autotune.certifying.examine import Seen
from autotune.config import load_config, resolve_config
from autotune.constraints import parse
from autotune.errors import ConfigError, DeviceError, ProbeError
from autotune.machine_lock import MachineLock
from autotune.pipeline import base_model
from autotune.preparation import prepare
from autotune.questions import Questions, Target
from autotune.report.certificate import as_json, sentences
from autotune.report.results import schema
from autotune.report.terminal import Terminal
from autotune.run_folder import RunFolder
from autotune.search.scoring import Scorer
from autotune.search.screening import broken, screen
from autotune.stats import Measurement
from autotune.storage.stage_runner import StageRunner
from autotune.storage.store import Store
from autotune.targets.several import in_sequence, site, tried
from autotune.targets.ssh import open_ssh
from autotune.trials import Screened, Timed
from autotune.workers import Worker
from objectives.result import ProbeResult
from objectives.steadiness import steadiness
from search_spaces.deploy import DeployParams
from tests import boards, studies
from tests.boards import Board
from tests.test_probe import CHOICE, for_artifact
from tests.timings import abba

LIMITS = ["accuracy >= 0.01", "latency_ms.p95@pi <= 60000", "size_mb <= 40"]


@dataclass(frozen=True)
class Ran:
    """A study of this machine and of ``pi``, run to its end; ``done`` is what the command said."""

    board: Board
    study: Path
    out: Path
    done: subprocess.CompletedProcess[str]

    @property
    def results(self) -> dict[str, Any]:
        return studies.results(self.out)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "autotune", *words], capture_output=True, text=True, timeout=300,
                              env={**studies.environment(), **self.board.environment()}, cwd=self.study.parent)

    def run(self, study: Path, out: Path) -> subprocess.CompletedProcess[str]:
        return self.command(*studies.command(study, out)[3:])

    def events(self) -> list[dict[str, Any]]:
        lines = (self.out / "events.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def changed(self, **changes: Any) -> Path:
        """The study with other top-level keys, beside it."""
        found = {**yaml.safe_load(self.study.read_text(encoding="utf-8")), **changes}
        path = self.study.with_name("changed.yaml")
        path.write_text(yaml.safe_dump(found, sort_keys=False), encoding="utf-8")
        return path


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("several")
    with boards.running(tmp_path_factory.mktemp("board")) as board:
        space = {**studies.study()["space"], "deploy": [{"precision": ["int8", "int4"]}]}
        study = studies.write_study(
            folder, constraints=LIMITS, objectives=["accuracy", "latency_ms.p50@pi", "size_mb"], space=space,
            devices={"pi": {"host": str(board.address), "python": sys.executable, "threads": 1}},
            budget={"adapters": 1}, certificate={"finalists": 1, "time": "20s"})
        found = Ran(board, study, folder / "run", None)  # type: ignore[arg-type]
        yield Ran(board, study, folder / "run", found.run(study, folder / "run"))


def test_the_study_holds_its_limits_on_both(ran: Ran) -> None:
    assert ran.done.returncode == 0, ran.done.stdout + ran.done.stderr
    found = ran.results
    jsonschema.validate(found, schema())
    assert "Measuring on pi, ssh://" in ran.done.stdout
    assert found["environment"]["devices"]["pi"]["libraries"]["onnxruntime"]
    assert found["environment"]["devices"]["pi"]["threads"] == 1
    assert "device" not in found["environment"]
    for point in found["deploy_points"]:
        assert {"latency_ms.p50", "latency_ms.p95", "latency_ms.p50@pi", "latency_ms.p95@pi", "ttft_ms.p50@pi",
                "peak_rss_mb@pi"} <= set(point["values"])
        assert not {"size_mb@pi", "accuracy@pi"} & set(point["values"])
        assert point["devices"]["pi"]["timing"]["state"] in ("steady", "disturbed", "drifting")


def test_trials_carry_the_devices_values_and_verdicts(ran: Ran) -> None:
    complete = [t for t in ran.results["trials"] if t["state"] == "COMPLETE"]
    assert len(complete) >= 1
    for trial in complete:
        assert trial["verdicts"]["latency_ms.p95@pi <= 60000"] in ("PASS", "INCONCLUSIVE")  # of few requests
        assert trial["values"]["latency_ms.p95@pi"]["measured_on"] == "base"
        assert trial["values"]["latency_ms.p50@pi"] != trial["values"]["latency_ms.p50"]
        assert {"probe", "probe@pi"} <= set(trial["stages"])


def test_the_certificate_has_a_part_for_each(ran: Ran) -> None:
    found = ran.results["certificate"]
    assert found["verdict"] == "PASS"
    (look,) = found["looks"]
    limit = next(c for c in look["constraints"] if c["expr"] == LIMITS[1])
    assert (limit["verdict"], limit["compared"], limit["unit"]) == ("PASS", "latency_ms.p95@pi", "ms")
    part = look["devices"]["pi"]
    assert part["answers"] == {"rows": 48, "differ": 0, "right": part["answers"]["right_on_target"],
                               "right_on_target": part["answers"]["right_on_target"]}
    assert part["values"]["latency_ms.p95"]["value"] == look["values"]["latency_ms.p95@pi"]["value"] == limit["value"]
    assert part["values"]["accuracy"] == look["values"]["accuracy"]
    assert part["timing"]["probe"]["versions"]["onnxruntime"]
    assert len(part["timing"]["probe"]["temperature_c"]) == 2
    assert "host" not in look["timing"]["probe"]
    assert "pi gave the same answers to all 48 rows." in ran.done.stdout
    assert len(list((ran.out / "predictions").glob("certificate@pi-trial-*.csv"))) == 1


def test_devices_stand_side_by_side_in_the_report(ran: Ran) -> None:
    page = (ran.out / "report.html").read_text(encoding="utf-8")
    section = page.partition('id="devices"')[2].partition("</section>")[0]
    assert section
    for text in ("<th scope=\"col\">target</th>", "<th scope=\"col\">pi</th>", "int8-b32", "p95", "PASS"):
        assert text in section, text


def test_a_finished_study_goes_on_without_measuring_anything(ran: Ran) -> None:
    before = len(ran.events())
    again = ran.run(ran.study, ran.out)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Certified before" in again.stdout
    made = [e for e in ran.events()[before:] if e["event"] == "stage_end" and not e["cached"]]
    assert not [e for e in made if e["stage"] in ("probe", "answers", "certify")]


def test_other_limits_on_a_device_are_put_to_a_finished_run(ran: Ran) -> None:
    fits = ran.command("select", str(ran.out), "--require", "latency_ms@pi <= 60000")
    assert fits.returncode == 0, fits.stdout + fits.stderr
    none = ran.command("select", str(ran.out), "--require", "latency_ms.p95@pi <= 0.001")
    assert none.returncode == 3, none.stdout + none.stderr
    assert "latency_ms.p95@pi" in none.stdout
    typo = ran.command("select", str(ran.out), "--require", "latency_ms.p95@pj <= 60000")
    assert typo.returncode == 2
    assert "did you mean 'latency_ms.p95@pi'?" in " ".join((typo.stdout + typo.stderr).split())


def test_a_bundle_leaves_the_limits_on_other_devices_to_them(ran: Ran, tmp_path: Path) -> None:
    done = ran.command("bundle", str(ran.out), "--out", str(tmp_path / "bundle"), "--store",
                       str(ran.study.parent / "store"))
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text(encoding="utf-8"))
    assert [c["expr"] for c in manifest["constraints"]] == [LIMITS[0], LIMITS[2]]
    assert "latency_ms.p95@pi" in manifest["measurements"]


def test_a_device_that_is_away_is_named_before_any_work(ran: Ran, tmp_path: Path) -> None:
    study = ran.changed(devices={"pi": {"host": "ssh://127.0.0.1:1", "threads": 1}})
    done = ran.run(study, tmp_path / "run")
    assert done.returncode == 1
    assert "pi (ssh://127.0.0.1:1): connection:" in " ".join((done.stdout + done.stderr).split())


def test_this_machine_beside_a_remote_target_and_requests_of_the_rows_own(ran: Ran, tmp_path: Path) -> None:
    """Latency is each adapter's then, on every device; answers are the target's."""
    study = ran.changed(
        target={"host": str(ran.board.address), "python": sys.executable, "provider": "cpu", "threads": 1,
                "workload": {"from": "valid", "samples": 5}},
        devices={"here": {"host": "local", "threads": 1}}, objectives=["accuracy", "latency_ms.p50@here"],
        constraints=["latency_ms.p95@here <= 60000"],
        space={**studies.study()["space"], "deploy": [{"precision": "int4"}]})
    done = ran.run(study, tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    found = studies.results(tmp_path / "run")
    jsonschema.validate(found, schema())
    (trial,) = found["trials"]
    assert trial["values"]["latency_ms.p95@here"]["measured_on"] == "artifact"
    assert {"probe", "probe@here"} <= set(trial["stages"])
    assert found["environment"]["devices"]["here"] == {"host": "local", "provider": "cpu", "threads": 1}
    (look,) = found["certificate"]["looks"]
    assert "host" in look["timing"]["probe"]
    assert "host" not in look["devices"]["here"]["timing"]["probe"]
    assert look["devices"]["here"]["answers"]["differ"] == 0


# -- what a study may say


def resolved(**changes: Any) -> list[str]:
    """What is wrong with a study of these changes."""
    study = {**copy.deepcopy(studies.study()), "devices": {"pi": {"host": "ssh://pi@kiosk", "threads": 4}}, **changes}
    try:
        resolve_config({**study, "data": {**study["data"], "train": "org/a", "valid": "org/b", "test": "org/c"}},
                       "study.yaml", Path("/nowhere"))
    except ConfigError as error:
        return [str(problem) for problem in error.problems if problem.where != "model"]
    return []


def test_keys_of_devices_are_understood() -> None:
    assert resolved(objectives=["accuracy", "latency_ms.p50@pi", "tokens_per_s@pi"],
                    constraints=["latency_ms.p95@pi <= 400", "peak_rss_mb@pi <= 0.9 * baseline"]) == []


@pytest.mark.parametrize(("changes", "said"), [
    ({"constraints": ["latency_ms.p95@pj <= 400"]},
     "constraints[0]: latency_ms.p95@pj: no device 'pj', did you mean 'pi'?; accepted: latency_ms.p95, which is the "
     "target's; or one of the study's devices: latency_ms.p95@pi"),
    ({"objectives": ["accuracy", "size_mb@pi"]},
     "objectives[1]: size_mb@pi: size_mb has no value of its own on a device; accepted: size_mb; with @pi: ttft_ms"),
    ({"constraints": ["accuracy@pi >= 0.5"]}, "constraints[0]: accuracy@pi: accuracy has no value of its own"),
    ({"constraints": ["latency_ms.p96@pi <= 5"]}, "has no statistic 'p96'"),
    ({"constraints": ["latency_ms.p95@pi <= 5"], "devices": None}, "the study names no devices"),
    ({"devices": {"my pi": {"host": "ssh://pi@kiosk", "threads": 4}}},
     "devices.my pi: no name for a device; accepted: letters, digits and '_'"),
    ({"devices": {"pi": {"host": "ssh://pi@kiosk", "thread": 4}}}, "devices.pi.thread: unknown key, did you mean "
                                                                   "'threads'?"),
    ({"devices": {"pi": {"threads": 4}}}, "devices.pi.host: missing"),
    ({"devices": {"pi": {"host": "ssh://pi:secret@kiosk", "threads": 4}}},
     "devices.pi.host: a password in the address"),
    ({"devices": {"pi": {"host": "local", "python": "python3", "threads": 4}}}, "devices.pi.python: given for this"),
    ({"devices": {}}, "devices: {}; accepted: at least 1 of them"),
])
def test_what_is_wrong_is_said(changes: dict[str, Any], said: str) -> None:
    assert [text for text in resolved(**changes) if said in text], resolved(**changes)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    found = resolved(objectives=["accuracy", "size_mb@pi"], constraints=["latency_ms.p95@po <= 1", "load_ms@pi <= 9"],
                     devices={"pi": {"host": "ssh://", "threads": 0}})
    assert {text.split(": ")[1] for text in found} == {"objectives[1]", "constraints[0]", "devices.pi.host",
                                                       "devices.pi.threads"}


def test_a_study_without_devices_is_the_one_that_it_was(tmp_path: Path) -> None:
    plain = resolve_config(yaml.safe_load(studies.write_study(tmp_path).read_text()), "study.yaml", tmp_path)
    assert "devices" not in plain.file.model_dump(exclude_none=True)
    other = resolve_config({**studies.study(), "devices": {"pi": {"host": "ssh://pi@kiosk", "threads": 4}}},
                           "study.yaml", tmp_path)
    assert plain.sha256() != other.sha256()


# -- several devices at a time


class Stub:
    """A device for work that is done without one. ``times`` gives what an artifact's requests take there, in ms."""

    about: Mapping[str, Any] | None = None

    def __init__(self, where: str, remote: bool = True, times: Callable[[Path], float] | None = None) -> None:
        self.where, self.is_remote, self._times = where, remote, times
        self.fingerprint: Mapping[str, Any] = {"board": where}
        self.stopped, self.asked = False, 0

    def memory_available(self) -> int | None:
        return None

    def measure(self, request: Any, *, workdir: Path, report: Any = None) -> ProbeResult:
        assert self._times
        self.asked += 1
        ms = self._times(Path(request["artifact"]))
        return ProbeResult(load_ms=1.0, peak_rss_mb=50.0, timing=abba([(ms, 300)] * 4), predictions=(), generations=(),
                           facts={}, stopped_after=None)

    def stop(self) -> None:
        self.stopped = True


def sites(**devices: Any) -> list[Any]:
    return [site(name.strip("_"), device, Target("cpu", {}, 1), device.fingerprint)
            for name, device in devices.items()]


def test_remote_devices_are_measured_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=30)
    found = tried(sites(pi=Stub("pi"), jetson=Stub("jetson")), lambda each: both.wait() >= 0 and each.name)
    assert found == {"pi": "pi", "jetson": "jetson"}


def test_two_boards_answer_at_once(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with boards.running(tmp_path / "second") as second:
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        monkeypatch.setenv("HOME", str(second.client))
        devices = {}
        keys = second.client / ".ssh"
        known = "".join((board.client / ".ssh" / "known_hosts").read_text() for board in (ran.board, second))
        (keys / "known_hosts").write_text(known)
        with (ran.board.folder / "authorized_keys").open("a") as file:
            file.write((keys / "id_ed25519.pub").read_text())
        for name, board in {"pi": ran.board, "nano": second}.items():
            devices[name] = open_ssh(board.place(name=name), "cpu", lambda _: None)
        both = threading.Barrier(2, timeout=60)

        def work(each: Any) -> ProbeResult:
            both.wait()
            found: ProbeResult = each.device.measure(for_artifact(CHOICE), workdir=tmp_path)
            return found

        found = tried(sites(**devices), work)
        assert [type(outcome) for outcome in found.values()] == [ProbeResult, ProbeResult], found
        assert found["pi"].predictions == found["nano"].predictions  # type: ignore[union-attr]


def test_this_machine_and_one_that_two_names_stand_for_measure_one_at_a_time() -> None:
    running, most, lock = [0], [0], threading.Lock()
    after_here: list[str] = []

    def work(each: Any) -> str:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            after_here.append(each.name)
        threading.Event().wait(0.05)
        with lock:
            running[0] -= 1
        return str(each.name)

    found = tried(sites(one=Stub("pi"), two=Stub("pi"), here=Stub("local", remote=False)), work)
    assert list(found) == ["one", "two", "here"]
    assert (most[0], after_here) == (1, ["here", "one", "two"])


def test_the_time_of_several_is_that_of_the_longest_way() -> None:
    assert in_sequence([("local", 5.0)]) == in_sequence([("ssh://a", 5.0)]) == 5.0
    assert in_sequence([("ssh://a", 5.0), ("ssh://b", 7.0)]) == 7.0
    assert in_sequence([("local", 2.0), ("ssh://a", 5.0), ("ssh://b", 7.0), ("ssh://a", 4.0), ("local", 1.0)]) == 12.0


def test_a_device_that_fails_leaves_the_others_to_their_end_and_is_named() -> None:
    def work(each: Any) -> str:
        if each.name == "pi":
            raise ProbeError("probe: killed by signal 9")
        return "done"

    found = tried(sites(pi=Stub("a"), jetson=Stub("b")), work)
    assert found["jetson"] == "done"
    assert str(found["pi"]) == "on pi: probe: killed by signal 9"
    assert getattr(found["pi"], "stage", "") == "probe"


def test_an_interrupt_ends_what_runs() -> None:
    devices = {"pi": Stub("a"), "jetson": Stub("b")}

    def work(each: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tried(sites(**devices), work)
    assert all(device.stopped for device in devices.values())


# -- what a device decides


def screened(here: float, there: float, steady: bool = True) -> Screened:
    def value(ms: float) -> Measurement:
        return Measurement(ms, ms - 10, ms + 10, 20, "ms")

    quiet = Timed(steadiness(abba([(300, 450)] * 4)), None, {})
    loud = Timed(steadiness(abba([(300, 450)] * 4, {3: 0.6}, wanted=24)), None, {})
    return Screened(DeployParams("int8"), {"latency_ms.p95": value(here), "latency_ms.p95@pi": value(there)}, {},
                    quiet, {"pi": quiet if steady else loud})


def test_a_point_is_dropped_for_a_limit_on_the_device_alone() -> None:
    limits = [parse("latency_ms.p95 <= 200"), parse("latency_ms.p95@pi <= 400")]
    assert broken(screened(100, 300), limits) == []
    (sentence,) = broken(screened(100, 700), limits)
    assert sentence == ("latency_ms.p95 is 700 [690, 710] ms on pi with the base model (n = 20), where "
                        "latency_ms.p95@pi <= 400")
    assert len(broken(screened(300, 700), limits)) == 2
    assert broken(screened(100, 405), limits) == []  # the interval decides, not the point


def test_a_device_that_was_disturbed_drops_nothing_and_the_target_still_does() -> None:
    limits = [parse("latency_ms.p95 <= 200"), parse("latency_ms.p95@pi <= 400")]
    (sentence,) = broken(screened(300, 700, steady=False), limits)
    assert sentence.endswith("where latency_ms.p95 <= 200")


INT8, INT4 = DeployParams("int8"), DeployParams("int4")


class Screener:
    """The study's deploy points measured on stubs: everything else is real, the store with its artifacts too."""

    def __init__(self, ran: Ran, folder: Path) -> None:
        self._ran, self._folder = ran, folder
        self.said: list[str] = []
        self.dropped: dict[str, str] = {}

    def screen(self, target: Stub, pi: Stub, limits: Sequence[str]) -> list[str]:
        """The labels of the points that are left."""
        config = load_config(self._ran.study)
        with RunFolder(self._folder / "run", "0" * 64, {}) as run:
            worker = Worker(run.log)
            try:
                runner = StageRunner(Store(self._ran.study.parent / "store"), worker, run, Terminal(silent=True),
                                     MachineLock(self._folder / "lock"), target, [pi])
                source = base_model.resolve(config.file.model, config.base_dir)
                prepared = prepare(config, source, runner, Terminal(silent=True))
                asked = Questions(8, (), ("latency_ms.p50", "latency_ms.p50@pi"), 0.95, self._folder, 0.002)
                scorer = Scorer(prepared, asked, runner, run, target.fingerprint, sites(pi=pi))
                found = screen(prepared.points, [parse(limit) for limit in limits], scorer, self.said.append)
            finally:
                worker.close()
        self.dropped = {dropped.point.label: dropped.reason for dropped in found.dropped}
        return [kept.point.label for kept in found.kept]


def test_stored_measurements_are_each_devices_own_and_a_slow_one_drops_a_point(ran: Ran, tmp_path: Path) -> None:
    def slow_with_int8(artifact: Path) -> float:
        return 900 if json.loads((artifact.parent / "info.json").read_text())["size_bytes"] > 150_000 else 100

    limits = ["latency_ms.p50 <= 400", "latency_ms.p50@pi <= 400"]
    target, pi = Stub("local", False, lambda _: 100), Stub("pi", True, slow_with_int8)
    screener = Screener(ran, tmp_path)
    assert screener.screen(target, pi, limits) == [INT4.label]
    assert screener.dropped == {INT8.label: "no adapter can save it: latency_ms.p50 is 900 [891, 918] ms on "
                                            "pi with the base model (n = 24), where latency_ms.p50@pi <= 400"}
    assert f"{INT8.label} is dropped: {screener.dropped[INT8.label]}" in screener.said
    assert (target.asked, pi.asked) == (2, 2)
    assert set(screener.screen(target, pi, limits[:1])) == {INT4.label, INT8.label}  # from the store
    assert (target.asked, pi.asked) == (2, 2)
    pi.fingerprint = {"board": "pi", "governor": "powersave"}
    screener.screen(target, pi, limits)
    assert (target.asked, pi.asked) == (2, 4)


def seen(ms: float, told: list[str], limit: str | None = None) -> Seen:
    value = Measurement(ms, ms - 5, ms + 5, 90, "ms")
    tested = {limit: certificate.Tested(value, parse(limit).bound, "latency_ms.p95")} if limit else {}
    return Seen({"latency_ms.p95": value, "accuracy": Measurement(0.5, 0.4, 0.6, len(told), "")}, tested, {"probe": {}},
                told, tuple(text == "joy" for text in told))


class Finalist:
    number = 3


class FakeExaminer:
    rows = 4

    def __init__(self, name: str, found: Seen | Exception) -> None:
        self.site, self._found, self.asked = sites(**{name or "_": Stub(name, bool(name))})[0], found, 0

    def seen(self, record: Any, confidence: float, constraints: Any, spare_s: float = 0.0) -> Seen:
        self.asked += 1
        if isinstance(self._found, Exception):
            raise self._found
        return self._found

    def logits(self, record: Any) -> Mapping[str, Any]:
        return {}


LIMIT = "latency_ms.p95@pi <= 100"


def certified(there: Seen | Exception, finalists: tuple[int, ...] = (3,)) -> tuple[Certificate, list[FakeExaminer]]:
    examiners = [FakeExaminer("", seen(10, ["joy", "fear", "joy", "fear"])), FakeExaminer("pi", there)]
    everywhere = EveryDevice(examiners)  # type: ignore[arg-type]

    def examine(trial: int, confidence: float) -> Evidence | str:
        try:
            return everywhere.evidence(Finalist(), confidence, [parse(LIMIT)])  # type: ignore[arg-type]
        except ProbeError as error:
            return f"{error.stage}: {error.reason}"

    return certify(finalists, [parse(LIMIT)], 0.95, examine), examiners


def text_of(found: Certificate) -> str:
    return " ".join(sentences(found, {3: "int8", 4: "int4"}, ["accuracy"], {"latency_ms.p95@pi": "ms"}, 4))


@pytest.mark.parametrize(("ms", "verdict"), [(50, "PASS"), (98, "INCONCLUSIVE"), (200, "FAIL")])
def test_the_whole_interval_on_the_device_decides(ms: float, verdict: str) -> None:
    found, _ = certified(seen(ms, ["joy", "fear", "joy", "fear"], LIMIT))
    assert found.verdict == verdict
    assert found.looks[0].held[0].tested.what == "latency_ms.p95@pi"


def test_answers_that_differ_are_counted() -> None:
    found, _ = certified(seen(50, ["joy", "joy", "fear", "joy"], LIMIT))
    assert ("pi answered 3 of 4 rows otherwise than the target: 3 are right there, 2 on the target."
            in text_of(found))
    part = as_json(found, {}, [])["looks"][0]["devices"]["pi"]
    assert part["answers"] == {"rows": 4, "differ": 3, "right": 3, "right_on_target": 2}
    assert set(part["values"]) == {"latency_ms.p95", "accuracy"}


def test_a_device_that_is_away_passes_nothing_and_is_waited_for_once() -> None:
    gone = DeviceError("ssh://pi@kiosk", "connection", "no answer within 20 s", "a device that can be reached")
    found, (target, pi) = certified(gone, (3, 4))
    assert (found.verdict, found.trial) == ("INCONCLUSIVE", 3)
    assert ("Nothing is certified: trial 3 (int8) could not be measured: probe: pi (ssh://pi@kiosk): connection: no "
            "answer within 20 s; accepted: a device that can be reached") in text_of(found)
    assert (target.asked, pi.asked) == (1, 1)


def test_a_targets_own_absence_ends_the_run() -> None:
    everywhere = EveryDevice([FakeExaminer("", DeviceError("kiosk", "connection", "gone", "one that is there")),
                              FakeExaminer("pi", seen(5, ["joy"]))])  # type: ignore[list-item]
    with pytest.raises(DeviceError):
        everywhere.evidence(Finalist(), 0.95, [])  # type: ignore[arg-type]


def test_a_device_adds_what_it_shapes_and_no_answers_or_size() -> None:
    here, there = seen(10, ["joy"]), seen(50, ["joy"], LIMIT)
    found = merged(here, {}, [(sites(pi=Stub("pi"))[0], there)])
    assert set(found.values) == {"latency_ms.p95", "accuracy", "latency_ms.p95@pi"}
    assert found.values["latency_ms.p95@pi"].value == 50
