"""A bundle of one trial: what goes into it, from where, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from autotune.bundle import samples as sampling
from autotune.bundle.card import card
from autotune.bundle.choice import Chosen, choose
from autotune.bundle.document import document
from autotune.bundle.licence import licence_of
from autotune.bundle.write import require_free, write
from autotune.deployment import deployment, stored, study_of
from autotune.errors import ConfigError, Problem
from autotune.finished import FinishedRun
from autotune.pipeline.stages import ARTIFACT_FOLDER
from autotune.storage.manifest import read_manifest
from autotune.storage.store import Store
from autotune.targets.checks import RUNTIMES
from objectives.bundle import MODEL, SAMPLES
from objectives.verdicts import rows_to_pass

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Made:
    """``notes`` are sentences for whoever asked for the bundle."""

    folder: Path
    manifest: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(int(file["size"]) for file in self.manifest["files"].values())


def make(
    run: FinishedRun, store: Store, out: Path, *, trial: int | None = None, samples: int, with_adapter: bool = False
) -> Made:
    """Write the bundle of ``trial``, the selected one where None, to the folder ``out``.

    ``samples`` is how many rows of the study's data travel with it. The same trial gives the same bytes.

    Raises:
        NothingSelectedError: no trial is asked for and the run selected none.
        InputError: the trial, its artifact, its rows, its adapter or ``out`` cannot be used.
    """
    chosen = choose(run, trial)
    out = out.resolve()
    assert chosen.trial.artifact
    if out.is_relative_to(chosen.trial.artifact.resolve()):
        raise ConfigError([Problem("--out", str(out), "lies inside the artifact", "a folder elsewhere")])
    require_free(out)
    found = deployment(run, store)
    drawn = sampling.draw(chosen, store, found, samples)
    licence = licence_of(study_of(run).model, found.study_dir, found.model)
    about = document(chosen, found, drawn, licence, adapter=with_adapter)
    copies = {**_model(chosen), **_programs(), **(_adapter(chosen, store) if with_adapter else {})}
    texts = {"README.md": card(chosen, about), "requirements.txt": _requirements(about)}
    if drawn.lines:
        texts[SAMPLES] = "\n".join(drawn.lines) + "\n"
    manifest = write(out, copies, texts, about, _stored_hashes(chosen, store))
    return Made(out, manifest, tuple(_notes(chosen, drawn, manifest)))


def _model(chosen: Chosen) -> dict[str, Path]:
    artifact = chosen.trial.artifact
    assert artifact
    files = (path for path in artifact.rglob("*") if path.is_file())
    return {f"{MODEL}/{path.relative_to(artifact).as_posix()}": path for path in files}


def _programs() -> dict[str, Path]:
    """run.py, verify.py and the package that both call: the very one that measured here."""
    import objectives

    package, device = Path(objectives.__file__).parent, Path(str(resources.files("autotune.bundle"))) / "device"
    own = {f"objectives/{path.name}": path for path in package.glob("*.py")}
    return {**own, **{path.name: path for path in device.glob("*.py")}}


def _adapter(chosen: Chosen, store: Store) -> dict[str, Path]:
    name = str(chosen.raw["adapter"])
    entry = stored(store, name)
    if entry is None:
        raise ConfigError([Problem("--with-adapter", "", f"the store at {store.root} has {name} no more",
                                   "the store of the run (--store), or a bundle without its adapter")])
    return {f"adapter/{file}": entry.path / file for file in ADAPTER_FILES}


def _stored_hashes(chosen: Chosen, store: Store) -> dict[str, str]:
    """What the artifact's and the adapter's files must hash to, where the store still knows."""
    found: dict[str, str] = {}
    stages = chosen.raw["stages"]
    keys = {f"{ARTIFACT_FOLDER}/": (stages.get("assemble", {}).get("key"), f"{MODEL}/"),
            "": (chosen.raw["adapter"], "adapter/")}
    for prefix, (key, folder) in keys.items():
        entry = stored(store, str(key)) if key else None
        files = read_manifest(entry.path)["files"] if entry else {}
        found |= {folder + name.removeprefix(prefix): file["sha256"] for name, file in files.items()
                  if name.startswith(prefix)}
    return found


def _requirements(about: Mapping[str, Any]) -> str:
    """What the device needs; the runtimes at the versions that were measured."""
    versions, (runtime, genai) = about["measured_with"]["versions"], RUNTIMES[about["target"]["provider"]]

    def pinned(name: str, version: str | None) -> str:
        return f"{name}=={version}" if version and version != "none" else name

    return "\n".join(["numpy", "psutil", pinned(runtime, versions.get("onnxruntime")),
                      pinned(genai, versions.get("onnxruntime_genai"))]) + "\n"


def _notes(chosen: Chosen, drawn: sampling.Samples, manifest: Mapping[str, Any]) -> list[str]:
    notes = []
    if not chosen.certified:
        notes.append("This trial is not certified; the model card says so.")
    needed = rows_to_pass()
    if not drawn.lines:
        notes.append("No row of the data travels with it, so verify.py cannot check its answers.")
    elif len(drawn.lines) < needed:
        notes.append(f"verify.py cannot be sure of its answers with {len(drawn.lines)} sample rows: it takes {needed}.")
    if manifest["base_model"]["licence"]["name"] is None:
        notes.append(f"The base model's licence is not known: {manifest['base_model']['licence']['source']}.")
    return notes
