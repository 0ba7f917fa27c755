"""``autotune doctor``: each thing it looks at, good and bad, and the whole of it for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autotune.doctor.base_model import base_model
from autotune.doctor.devices import gpus, providers
from autotune.doctor.finding import Finding, sentence
from autotune.doctor.libraries import libraries, python_version, requirements
from autotune.doctor.processor import governor, instructions
from autotune.doctor.resources import Allowance, allowance, cores, load, memory, swap
from autotune.doctor.selftest import SelfTest
from autotune.doctor.storage import storage
from autotune.doctor.tiny_model import make_model
from autotune.workers import Worker
from objectives.quiet import Load
from tests import studies, tiny

STATED = ["numpy>=2.4,<3", "onnxruntime>=1.32,<1.33", "tomli>=2; python_version < '3.0'",
          "onnxruntime-gpu>=1.31,<1.33; extra == 'gpu'", "pytest>=9; extra == 'test'"]


def found_with(**installed: str) -> dict[str, Finding]:
    versions = {name.replace("_", "-"): version for name, version in installed.items()}
    return {f.name: f for f in requirements(STATED, ["gpu", "test"], versions.get)}


def test_versions_inside_their_range_are_well() -> None:
    found = found_with(numpy="2.4.6", onnxruntime="1.32.0", pytest="1.0")
    assert {name: f.state for name, f in found.items()} == {"numpy": "ok", "onnxruntime": "ok"}


def test_a_missing_library_fails_a_run_and_another_version_is_a_warning() -> None:
    found = found_with(onnxruntime="1.31.0")
    assert (found["numpy"].state, found["numpy"].mend) == ("problem", "pip install 'numpy>=2.4,<3'")
    assert found["onnxruntime"].state == "warning"
    assert found["onnxruntime"].mend == "pip install 'onnxruntime>=1.32,<1.33'"
    assert "1.31.0; accepted: >=1.32,<1.33" in found["onnxruntime"].found


def test_a_build_for_a_gpu_stands_in_and_a_local_version_counts() -> None:
    found = found_with(numpy="2.4.6+cpu", onnxruntime_gpu="1.32.1")
    assert "onnxruntime" not in found
    assert {f.state for f in found.values()} == {"ok"}
    assert "onnxruntime-gpu (extra gpu)" in found


def test_the_libraries_here_are_those_that_the_package_asks_for() -> None:
    names = {f.name for f in libraries()}
    assert {"python", "torch", "onnxruntime-genai", "optuna"} <= names
    assert python_version(">=3.11", "3.10.2").state == "problem"


def test_instructions_of_processors(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags\t\t: fpu avx2 avx512f avx_vnni\n")
    assert instructions(info, "x86_64").found == "AVX2 yes, AVX-512 yes, VNNI yes, AMX-INT8 no, bf16 no"
    info.write_text("Features\t: fp asimd asimddp i8mm\n")
    assert instructions(info, "aarch64").found == "NEON yes, dotprod yes, i8mm yes, bf16 no, SVE no"
    info.write_text("flags : fpu sse2\n")
    assert instructions(info, "x86_64").state == "warning"
    assert instructions(tmp_path / "none", "arm64").found == "not told by this system"


def test_governors(tmp_path: Path) -> None:
    assert governor(tmp_path) == []
    for cpu, name in enumerate(["performance", "powersave"]):
        (tmp_path / f"cpu{cpu}/cpufreq").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}/cpufreq/scaling_governor").write_text(name + "\n")
    (finding,) = governor(tmp_path)
    assert (finding.found, finding.state) == ("performance, powersave", "warning")
    assert finding.mend.startswith("sudo cpupower")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def test_limits_of_a_container_and_of_what_is_around_it(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/pod/box\n")
    box = root / "sys/fs/cgroup/pod/box"
    box.mkdir(parents=True)
    (box / "cpu.max").write_text("max 100000\n")
    (box.parent / "cpu.max").write_text("150000 100000\n")
    (box / "memory.max").write_text("4000000000\n")
    (box / "memory.current").write_text("1000000000\n")
    assert allowance(root) == Allowance(1.5, 4_000_000_000, 1_000_000_000)


def test_limits_of_the_first_version(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("5:cpu,cpuacct:/box\n4:memory:/box\n")
    for controller in ("cpu", "memory"):
        (root / f"sys/fs/cgroup/{controller}/box").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us").write_text("50000")
    (root / "sys/fs/cgroup/cpu/box/cpu.cfs_period_us").write_text("100000")
    (root / "sys/fs/cgroup/memory/box/memory.limit_in_bytes").write_text("9223372036854771712")  # none
    assert allowance(root) == Allowance(0.5, None)


def test_a_system_without_control_groups_sets_no_limit(root: Path) -> None:
    assert allowance(root) == Allowance(None, None)


def test_cores_memory_and_swap() -> None:
    assert cores(2, 4, 4, None).state == "ok"
    assert cores(2, 4, 2, None).found == "2 physical, 4 logical, of which this process may use 2"
    throttled = cores(2, 4, 4, 1.5)
    assert (throttled.state, throttled.mend.split(" in ")[0]) == ("warning", "threads: 1")
    assert memory(8 * 10**9, 6 * 10**9, Allowance(None, None)).state == "ok"
    assert memory(8 * 10**9, 6 * 10**9, Allowance(None, 3 * 10**9, 2 * 10**9)).state == "warning"
    assert swap(0, 0).found == "none"
    assert swap(2 * 10**9, 10**9).state == "warning"


def test_load_of_others() -> None:
    assert load(Load(1.0, 0.05, 0.0, 0)).state == "ok"
    busy = load(Load(1.0, 0.9, 0.5, 0))
    assert busy.state == "warning"
    assert "1.40 cores, 0.50 of them other machines" in busy.found


def test_a_store_that_is_not_there_yet_stays_so(tmp_path: Path) -> None:
    found = {f.name: f for f in storage(tmp_path / "a/store")}
    assert {"folder", "hard links", "locks", "room"} == set(found)
    assert found["hard links"].state == found["locks"].state == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    (finding,) = storage(tmp_path / "store")
    assert (finding.state, finding.name) == ("problem", "folder")
    assert "--store" in finding.mend


def test_accelerators() -> None:
    assert providers(["CPUExecutionProvider"], {"cpu": True, "cuda": False}, [])[1].state == "ok"
    broken = providers(["CPUExecutionProvider"], {"cpu": True, "cuda": False}, ["onnxruntime-genai-cuda"])[1]
    assert (broken.state, broken.mend) == (
        "warning", "pip install --force-reinstall --no-deps onnxruntime-genai-cuda")
    card: dict[str, Any] = {"built_for": "12.8", "gpus": [("a card", 80e9)]}
    assert gpus(card, cuda=True, driver=True)[0].found == "a card, 80 GB"
    assert gpus(card, cuda=False, driver=True)[0].state == "note"
    assert gpus({"built_for": None, "gpus": []}, cuda=False, driver=True)[0].state == "warning"
    assert gpus({"built_for": None, "gpus": []}, cuda=False, driver=False)[0].state == "ok"


def test_base_models(tmp_path: Path) -> None:
    found = base_model(str(tiny.make_model(tmp_path / "model")))
    assert (found.state, found.found.split(",")[0]) == ("ok", "LlamaForCausalLM")
    assert base_model("nothing here").state == "problem"
    assert base_model("org/name").state == "ok"


def test_the_sentence_counts_what_matters() -> None:
    well, warned, broken = (Finding("t", s, "", s) for s in ("ok", "warning", "problem"))  # type: ignore[arg-type]
    assert sentence([well]) == "All is well: studies run here."
    assert sentence([well, warned]) == "Studies run here, with 1 warning."
    assert sentence([broken, warned]) == "A run would fail here: 1 problem (problem), and 1 warning."


class Dying(Worker):
    """Its process dies where the tiny model should be made, as on a processor that lacks an instruction."""

    def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        if function is make_model:
            return super().run(os.abort)
        return super().run(function, *args, **kwargs)


def test_a_step_that_fails_is_the_last_and_says_why(tmp_path: Path) -> None:
    (step,) = SelfTest(Dying(tmp_path / "worker.log"), tmp_path).steps()
    assert step.name == "tiny model"
    assert step.error
    assert "the worker process was killed by SIGABRT" in step.error


def test_doctor_as_a_program_reads_it(tmp_path: Path) -> None:
    options = ["--json", "--store", str(tmp_path / "store"), "--model", "gone.gguf"]
    done = subprocess.run([sys.executable, "-m", "autotune", "doctor", *options], capture_output=True, text=True,
                          env=studies.environment(), cwd=tmp_path, timeout=300)
    found = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert not found["ok"]
    assert found["sentence"].startswith("A run would fail here: 1 problem (gone.gguf)")
    assert {f["topic"] for f in found["findings"]} == {
        "libraries", "machine", "store", "base model", "devices", "self-test"}
    assert all(f["affects"] and f["mend"] for f in found["findings"] if f["state"] in ("warning", "problem"))
    steps = {s["name"]: s for s in found["self_test"]}
    assert next(iter(steps)) == "tiny model"
    assert list(steps)[-1] == "logits against PyTorch"  # the whole way
    assert all(s["error"] is None and s["seconds"] > 0 for s in steps.values())
    assert steps["answers at fp32"]["found"].startswith("9 answers")
    assert steps["answers at int4"]["found"].startswith("9 answers")
