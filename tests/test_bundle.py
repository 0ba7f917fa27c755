"""A real bundle: made of a run, carried elsewhere, asked and checked there by its own programs."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from autotune.bundle.document import schema
from autotune.bundle.make import make
from autotune.errors import ConfigError
from autotune.finished import read_run
from autotune.storage.store import Store
from tests import bundles, studies
from tests.bundles import manifest_of, on_device, rows_of

LIGHT = ("numpy", "psutil", "onnxruntime", "onnxruntime_genai", "objectives")
#: What ONNX Runtime itself imports, and what a virtual environment starts with.
THEIRS = ("flatbuffers", "packaging", "google", "_distutils_hack", "sitecustomize", "usercustomize")


def test_the_manifest_holds_to_its_schema_and_carries_what_was_measured() -> None:
    manifest, run = manifest_of(bundles.bundle()), read_run(bundles.certified())
    jsonschema.validate(manifest, schema())
    assert manifest["certified"]
    assert manifest["certificate"] == run.certificate
    assert manifest["measurements"]["accuracy"]["n"] == 48
    assert manifest["measurements"]["latency_ms.p50"]["unit"] == "ms"
    assert manifest["measured_with"]["versions"]["onnxruntime_genai"]
    assert manifest["base_model"]["id"] == "model"
    assert manifest["data"]["licence"]["name"] is None
    assert manifest["samples"] == {"count": 48, "of": 48, "split": "test"}


@pytest.mark.parametrize("name", ["../x", "a\\b", "/x", "manifest.json", "a/./b", "C:x"])
def test_the_schema_knows_no_name_that_leaves_the_folder(name: str) -> None:
    manifest = manifest_of(bundles.bundle())
    manifest["files"][name] = {"size": 0, "sha256": "0" * 64}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, schema())


def test_two_bundles_of_a_trial_are_the_same_bytes() -> None:
    again = bundles.made("again").folder
    names = [p.relative_to(again).as_posix() for p in sorted(again.rglob("*")) if p.is_file()]
    assert set(names) == {*manifest_of(again)["files"], "manifest.json"}
    assert filecmp.cmpfiles(bundles.bundle(), again, names, shallow=False) == (names, [], [])
    artifact = bundles.certified() / "artifacts" / "trial-0"
    assert (artifact / "model.onnx").stat().st_ino != (again / "model" / "model.onnx").stat().st_ino


def test_the_adapter_travels_where_it_is_asked_for(tmp_path: Path) -> None:
    from peft import LoraConfig

    folder = bundles.made("with-adapter", with_adapter=True).folder
    assert {p.name for p in (folder / "adapter").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert LoraConfig.from_pretrained(folder / "adapter").r == 4
    assert manifest_of(folder)["adapter"] == "adapter"
    with pytest.raises(ConfigError, match=r"--with-adapter: the store at .* has adapter/[0-9a-f]+ no more"):
        make(read_run(bundles.certified()), Store(tmp_path / "empty"), tmp_path / "x", samples=0, with_adapter=True)


def test_an_artifact_that_the_store_knows_otherwise_is_refused(tmp_path: Path) -> None:
    run = bundles.certified()
    shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "run" / "artifacts" / "trial-0" / "model.onnx"
    flip(weights)
    with pytest.raises(ConfigError, match=r"model\.onnx: damaged"):
        make(read_run(tmp_path / "run"), Store(run.parent / "store"), tmp_path / "out", samples=4)
    assert not (tmp_path / "out").exists()


def test_it_answers_wherever_it_lies_and_whoever_calls(tmp_path: Path) -> None:
    folder = bundles.copied(tmp_path / "a place é")
    sample = json.loads((folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()[0])
    phrase = sample["prompt"].removeprefix("### Text: ").removesuffix("\n### The tone is:\n")
    done = on_device(folder, "run.py", phrase, cwd=tmp_path)
    assert (done.stdout, done.returncode) == (f"{sample['answer']}\n", 0), done.stderr
    as_json = on_device(folder, "run.py", "--json", "--column", f"phrase={phrase}", cwd=folder)
    assert json.loads(as_json.stdout)["answer"] == sample["answer"]
    assert on_device(folder, "verify.py", "--quick").returncode == 0  # and nothing was added to the folder


@pytest.mark.parametrize(("arguments", "found"), [
    ([], "no value for phrase; accepted: a text"), (["--column", "phrases=x"], "did you mean 'phrase'?"),
    (["--column", "phrase"], "has no ="), ([" "], "no text to answer"),
    (["a", "--column", "phrase=b"], "the plain text 'a'"), (["word " * 3000], "tokens; accepted: at most"),
    (["--jsn", "x"], "--jsn"),
])
def test_bad_usage_is_named(arguments: list[str], found: str) -> None:
    done = on_device(bundles.bundle(), "run.py", *arguments)
    assert done.returncode == 2
    assert found in done.stderr
    assert "Traceback" not in done.stderr


def test_it_passes_its_own_check_where_it_was_measured() -> None:
    done = on_device(bundles.bundle(), "verify.py", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"] == "PASS"
    assert found["bundle"]["digest"] == manifest_of(bundles.bundle())["digest"]
    assert (found["answers"]["agree"], found["answers"]["n"]) == (48, 48)
    limits = {limit["expr"]: limit for limit in found["limits"]}
    assert [limits[expr]["verdict"] for expr in bundles.LIMITS] == [None, "PASS", "PASS", None]
    assert "relative to a baseline" in limits["latency_ms.p50 <= 50 * baseline"]["note"]
    p95 = found["values"]["latency_ms.p95"]
    assert p95["n"] >= 90
    assert p95["ratio"] == pytest.approx(p95["value"] / p95["measured"]["value"])
    assert found["device"]["settings"]["threads"] == 1


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # it may be a hard link
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", [
    "model/model.onnx", "model/tokenizer.json", "samples.jsonl", "objectives/latency.py", "README.md", "verify.py",
])
def test_one_flipped_byte_is_named_and_nothing_is_run(tmp_path: Path, name: str) -> None:
    folder = bundles.copied(tmp_path / "bundle")
    flip(folder / name)
    checks = [installed(folder)] if name == "verify.py" else [on_device(folder, "verify.py"), installed(folder)]
    for done in checks:
        assert done.returncode == 1, done.stdout + done.stderr
        assert f"{name} was changed: its sha256 is another" in done.stdout
        assert "sample rows" not in done.stderr


def test_what_is_cut_short_missing_or_too_much_is_named(tmp_path: Path) -> None:
    folder = bundles.copied(tmp_path / "bundle")
    weights = max((folder / "model").iterdir(), key=lambda path: path.stat().st_size)
    with weights.open("r+b") as file:
        file.truncate(100)
    (folder / "model" / "genai_config.json").unlink()
    (folder / "model" / "notes.txt").write_text("mine")
    done = on_device(folder, "verify.py", "--json")
    assert done.returncode == 1
    found = "\n".join(json.loads(done.stdout)["files"]["problems"])
    assert f"model/{weights.name} is cut short: 100 bytes" in found
    assert "model/genai_config.json is missing" in found
    assert "model/notes.txt does not belong to the bundle" in found


def test_a_manifest_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = bundles.copied(tmp_path / "bundle")
    files = {**manifest_of(folder)["files"], "../x": {"size": 0, "sha256": "0" * 64}}
    bundles.resealed(folder, rows_of(folder), files=files)
    (tmp_path / "x").write_text("")
    for done in (on_device(folder, "verify.py"), installed(folder)):
        assert done.returncode == 1
        assert "the name '../x' may leave the folder" in done.stdout


def test_without_rows_nothing_of_the_data_is_in_it() -> None:
    made = bundles.made("private", samples=0)
    assert any("cannot check its answers" in note for note in made.notes)
    rows = (bundles.certified().parent / "test.jsonl").read_text(encoding="utf-8").splitlines()
    phrases = [json.loads(row)["phrase"].encode() for row in rows]
    for path in made.folder.rglob("*"):
        assert not path.is_file() or not any(phrase in path.read_bytes() for phrase in phrases)
    done = on_device(made.folder, "verify.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answers: not checked" in done.stdout
    assert "latency_ms.p95 <= 2000: " in done.stdout


def test_nothing_is_imported_that_a_device_lacks(tmp_path: Path) -> None:
    """A finder before all others refuses every package but those that requirements.txt brings."""
    allowed = sorted({*LIGHT, *THEIRS, *sys.stdlib_module_names})
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] not in {allowed!r}:\n"
        "            raise ImportError(f'a device has no {name}')\n"
        "sys.meta_path.insert(0, Refuse())\n", encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    for arguments in (["verify.py"], ["run.py", "sun sing cake"]):
        done = subprocess.run([sys.executable, str(bundles.bundle() / arguments[0]), *arguments[1:]], env=environment,
                              capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    refused = subprocess.run([sys.executable, "-c", "import scipy"], env=environment, capture_output=True, text=True)
    assert "a device has no scipy" in refused.stderr


def test_the_programs_that_measured_here_travel() -> None:
    import objectives

    for path in Path(objectives.__file__).parent.glob("*.py"):
        assert (bundles.bundle() / "objectives" / path.name).read_bytes() == path.read_bytes()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "autotune", *arguments], capture_output=True, text=True,
                          env=studies.environment(), timeout=300)


def installed(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return command("verify", str(folder), *options)


def test_the_commands(tmp_path: Path) -> None:
    run = bundles.certified()
    store = str(run.parent / "store")
    done = command("bundle", str(run), "--out", str(tmp_path / "out"), "--store", store, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["digest"] == manifest_of(bundles.bundle())["digest"]
    assert (told["certified"], told["samples"], told["trial"]) == (True, 48, 0)
    checked = installed(tmp_path / "out", "--quick", "--json")
    assert (checked.returncode, json.loads(checked.stdout)["verdict"]) == (0, "PASS")
    (tmp_path / "out" / "own.txt").write_text("mine")
    again = command("bundle", str(run), "--out", str(tmp_path / "out"), "--store", store)
    assert again.returncode == 2
    assert "own.txt" in again.stderr
    assert installed(tmp_path / "nowhere").returncode == 2


def test_a_run_that_selected_nothing_ends_with_exit_3(tmp_path: Path) -> None:
    run = bundles.written(tmp_path, selected=None)
    done = command("bundle", str(run), "--out", str(tmp_path / "out"), "--store", str(tmp_path))
    assert done.returncode == 3
    assert "nothing is selected" in done.stderr
    assert not (tmp_path / "out").exists()
