"""What a run came to, read from its folder in a form that can be compared with another run's."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import optuna

from autotune.search.optuna_study import recorded
from autotune.trials import INTERRUPTED
from tests import studies

Row = tuple[Any, ...]


def trials(out: Path, name: str) -> list[optuna.trial.FrozenTrial]:
    """What a reader of study.db sees. A copy is read: the next process must find the file as the kill left it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        for file in out.glob("study.db*"):
            shutil.copy(file, scratch)
        storage = optuna.storages.RDBStorage(f"sqlite:///{scratch}/study.db")
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:  # not yet made
            return []
        return study.get_trials(deepcopy=False)


def interrupted(trial: optuna.trial.FrozenTrial) -> bool:
    attrs = recorded(trial)
    failure = attrs.get("failure")
    return not trial.state.is_finished() or "deploy" not in attrs or (
        failure is not None and failure[0] == INTERRUPTED)


def row(trial: optuna.trial.FrozenTrial) -> Row:
    """A trial without its number and times: adapter, deploy point, state, every value and violation."""
    attrs = recorded(trial)
    texts = (attrs["adapter"], attrs["deploy"], attrs.get("measurements"), attrs.get("failure"), attrs.get("artifact"),
             attrs.get("rungs"), trial.constraints, trial.params)
    return (trial.state.name, tuple(trial.values or ()), *(json.dumps(t, sort_keys=True) for t in texts))


def table(out: Path) -> list[Row]:
    return [row(t) for t in trials(out, "tiny") if not interrupted(t)]


def proposals(out: Path) -> list[Row]:
    """Adapters in the order in which they were proposed, and what the sampler was told of them."""
    return [(json.dumps(recorded(t)["adapter"]), t.state.name, tuple(t.values or ()), json.dumps(t.constraints))
            for t in trials(out, "tiny/proposals") if "adapter" in recorded(t)]


def finished(out: Path) -> dict[int, Row]:
    """By number, the trials that no kill may take away again."""
    return {t.number: row(t) for t in trials(out, "tiny") if t.state.name in ("COMPLETE", "PRUNED")}


def chosen(out: Path) -> tuple[list[Any], Any]:
    """The front and the selection by what they are: an interrupted trial shifts the numbers."""
    document = studies.results(out)
    named = {t["number"]: (json.dumps(t["params"]), t["deploy_point"]) for t in document["trials"]}
    kept = {p.name for p in (out / "artifacts").glob("*")}
    assert kept == {f"trial-{n}" for n in document["front"]}, kept
    return [named[n] for n in document["front"]], document["selected"] and named[document["selected"]["trial"]]
