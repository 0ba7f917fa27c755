"""Folder, .gguf file and package all become one usable Hugging Face folder, or are refused by name."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from autotune.errors import BaseModelError
from autotune.pipeline.base_model import ModelSource, fingerprint, materialize, resolve
from tests import tiny
from tests.tiny_gguf import write_gguf


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "model"))


@pytest.fixture
def package(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Python package that ships a tiny model, as real ones do: in a data folder, written out by assemble."""
    root = tmp_path / "site" / "tiny_weights_gguf"
    root.mkdir(parents=True)
    write_gguf(llama, root / "part0")
    (root / "__init__.py").write_text(
        "import shutil\nfrom pathlib import Path\n\n\ndef assemble(output_path):\n"
        "    return Path(shutil.copy(Path(__file__).parent / 'part0', output_path))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "tiny_weights_gguf", raising=False)
    importlib.invalidate_caches()
    return "tiny_weights_gguf"


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(source: ModelSource, out: Path) -> str:
    with pytest.raises(BaseModelError) as caught:
        materialize(source, out)
    assert not out.exists()
    return str(caught.value)


# --- resolve


@pytest.mark.parametrize(
    ("spec", "name", "revision"),
    [
        ("org/name", "org/name", None),
        ("org/name@v1.0", "org/name", "v1.0"),
        ("HuggingFaceTB/SmolLM2-135M@refs/pr/3", "HuggingFaceTB/SmolLM2-135M", "refs/pr/3"),
    ],
)
def test_hub_names(tmp_path: Path, spec: str, name: str, revision: str | None) -> None:
    assert resolve(spec, tmp_path) == ModelSource("hub", name, revision)


def test_paths_start_at_the_study_and_win_over_hub_names(folder: Path) -> None:
    base_dir = folder.parent
    expected = ModelSource("folder", str(folder.resolve()))
    assert resolve("model", base_dir) == resolve("./model", base_dir) == resolve(str(folder), Path("/")) == expected
    (base_dir / "a").mkdir()
    shutil.copytree(folder, base_dir / "a" / "b")
    assert resolve("a/b", base_dir).kind == "folder"
    (base_dir / "m.GGUF").touch()
    assert resolve("m.GGUF", base_dir) == ModelSource("gguf", str((base_dir / "m.GGUF").resolve()))


def test_package_name(tmp_path: Path, package: str) -> None:
    assert resolve(f"package:{package}", tmp_path) == ModelSource("package", package)


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("", "''"), ("gpt2", "'gpt2'"), ("./missing", "'./missing'"), ("org/name@", "'org/name@'"),
        ("a/b/c", "'a/b/c'"), ("../x/y", "'../x/y'"), ("missing.gguf", "no file"), ("empty", "has no config.json"),
        ("package:", "'package:'"), ("package:os.path", "'package:os.path'"),
        ("package:no_such_package", "not installed; accepted: an installed package; try: pip install no-such-package"),
    ],
)  # fmt: skip
def test_what_is_no_model_says_what_is_accepted(tmp_path: Path, spec: str, found: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError) as caught:
        resolve(spec, tmp_path)
    assert found in str(caught.value)
    assert caught.value.problems[0].accepted


# --- materialize


def test_folder_is_used_where_it_lies(folder: Path, tmp_path: Path) -> None:
    assert materialize(resolve("model", tmp_path), tmp_path / "out") == folder
    assert not (tmp_path / "out").exists()


def test_folder_with_pickled_weights_only(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    message = refused(ModelSource("folder", str(folder)), tmp_path / "out")
    assert "weights only as pickle (pytorch_model.bin); accepted: weights as safetensors" in message


def test_folder_lacking_files_is_told_all_at_once(folder: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).unlink()
    message = refused(ModelSource("folder", str(folder)), tmp_path / "out")
    assert "no model*.safetensors" in message
    assert "no tokenizer files" in message


def test_folder_with_code_of_its_own(folder: Path, tmp_path: Path) -> None:
    edit_config(folder, auto_map={"AutoModelForCausalLM": "modeling_x.X"})
    message = refused(ModelSource("folder", str(folder)), tmp_path / "out")
    assert "auto_map: the model brings its own code (X)" in message


def test_leftover_names_of_classes_that_transformers_has(folder: Path, tmp_path: Path) -> None:
    edit_config(folder, auto_map={"AutoConfig": "configuration_llama.LlamaConfig",
                                  "AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"})  # fmt: skip
    assert materialize(ModelSource("folder", str(folder)), tmp_path / "out") == folder


def test_tokenizer_with_code_of_its_own(folder: Path, tmp_path: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoTokenizer": ["x.X", None]}}))
    assert "tokenizer_config.json: auto_map" in refused(ModelSource("folder", str(folder)), tmp_path / "out")


@pytest.mark.parametrize("kind", ["folder", "gguf", "package"])
def test_unsupported_architecture_is_refused_by_name(
    kind: str, folder: Path, llama: Path, tmp_path: Path, package: str
) -> None:
    edit_config(folder, architectures=["GPT2LMHeadModel"], model_type="gpt2")
    file = write_gguf(llama, tmp_path / "m.gguf", claims="gpt2")
    shutil.copy(file, tmp_path / "site" / package / "part0")
    names = {"folder": str(folder), "gguf": str(file), "package": package}
    message = refused(ModelSource(kind, names[kind]), tmp_path / "out")  # type: ignore[arg-type]
    assert ("GPT2LMHeadModel" if kind == "folder" else "'gpt2'") in message
    assert "accepted: " in message
    assert not list(tmp_path.glob(".out-*"))


def test_gguf_and_package_give_the_same_folder(llama: Path, tmp_path: Path, package: str) -> None:
    file = write_gguf(llama, tmp_path / "m.gguf")
    notes: list[str] = []
    one = materialize(resolve("m.gguf", tmp_path), tmp_path / "deep" / "one", lambda d, t, note="": notes.append(note))
    other = tmp_path / "other"
    other.mkdir()  # an empty folder may stand there already
    assert materialize(resolve(f"package:{package}", tmp_path), other) == other
    for name in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert sorted(p.name for p in other.iterdir()) == sorted(p.name for p in one.iterdir())
    assert not list(tmp_path.rglob("*.gguf"))[1:]
    assert file.exists()
    assert not list(tmp_path.rglob(".o*"))
    assert notes
    ids = torch.tensor([AutoTokenizer.from_pretrained(one)("the lazy dog").input_ids])
    answers = [
        AutoModelForCausalLM.from_pretrained(path).generate(ids, max_new_tokens=8, do_sample=False).tolist()
        for path in (llama, one)
    ]
    assert answers[0] == answers[1]


def test_damaged_file_leaves_nothing_behind(llama: Path, tmp_path: Path) -> None:
    file = write_gguf(llama, tmp_path / "m.gguf")
    file.write_bytes(file.read_bytes()[:-500])
    assert "cannot load it" in refused(ModelSource("gguf", str(file)), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("", "no function assemble"),
        ("import not_there_at_all\n", "import broken_weights failed"),
        ("def assemble(path): raise ValueError('sha256 did not match')\n", "assemble failed: sha256 did not match"),
        ("def assemble(path): return path\n", "assemble wrote no file"),
    ],
)
def test_packages_that_do_not_deliver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    (tmp_path / "broken_weights.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken_weights", raising=False)
    importlib.invalidate_caches()
    assert message in refused(resolve("package:broken_weights", tmp_path), tmp_path / "out")


# --- fingerprint


def test_folder_fingerprint_follows_what_the_model_says(folder: Path) -> None:
    source = ModelSource("folder", str(folder))
    before = fingerprint(source)
    (folder / "README.md").write_text("words")
    assert fingerprint(source) == before
    shutil.copytree(folder, folder.parent / "copy")
    assert fingerprint(ModelSource("folder", str(folder.parent / "copy"))) == before
    edit_config(folder, rms_norm_eps=1e-5)
    after_config = fingerprint(source)
    tokenizer = folder / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert len({str(f) for f in (before, after_config, fingerprint(source))}) == 3


def test_gguf_and_package_fingerprints(tmp_path: Path, package: str) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"same")
    assert fingerprint(resolve("a.gguf", tmp_path)) == fingerprint(resolve("b.gguf", tmp_path))
    before = fingerprint(resolve(f"package:{package}", tmp_path))
    (tmp_path / "site" / package / "part0").write_bytes(b"other")
    assert fingerprint(resolve(f"package:{package}", tmp_path)) != before
    assert "version" in fingerprint(ModelSource("package", "gguf"))


def test_hub_fingerprint_of_a_commit_needs_no_connection() -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    assert fingerprint(ModelSource("hub", "org/name", commit))["revision"] == commit
