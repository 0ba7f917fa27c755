"""Optuna's studies as autotune keeps them: opened, copied, asked for a trial, and what a trial holds for autotune."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import PartialFixedSampler
from optuna.trial import FrozenTrial, Trial

from autotune.pareto import Direction

#: The system attribute that autotune reads back; user attributes are for people, who see them all.
RECORD = "autotune"
#: Why a trial was stopped or failed; attributes are shown by the alphabet, and this one should come early.
END_REASON = "end_reason"
_PROXY_ANSWERS_S = 20.0


def open_study(
    database: str, name: str, directions: Sequence[Direction], metric_names: Sequence[str]
) -> optuna.Study:
    """The study of that name in the database, made if it is not there. Raises what the database's driver raises."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=_storage(database), study_name=name, directions=list(directions), load_if_exists=True
    )
    if study.metric_names != list(metric_names):
        with warnings.catch_warnings():  # Optuna calls the names experimental
            warnings.simplefilter("ignore")
            study.set_metric_names(list(metric_names))
    return study


def reach(database: str) -> None:
    """Raises what the database's driver raises where it cannot be opened."""
    if not database.startswith("sqlite"):
        _storage(database)


def copy_studies(database: str, names: Mapping[str, str], file: Path) -> None:
    """The studies of a database, by their names there and in the copy, into an SQLite file, whole or not at all."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    storage = _storage(database)
    for there, here in names.items():
        optuna.copy_study(from_study_name=there, from_storage=storage, to_study_name=here,
                          to_storage=f"sqlite:///{beside}")
    beside.replace(file)


def _storage(database: str) -> str | optuna.storages.BaseStorage:
    with warnings.catch_warnings():  # Optuna calls its proxy experimental
        warnings.simplefilter("ignore")
        if proxy := re.fullmatch(r"grpc://(.*):(\d+)/?", database):
            storage = optuna.storages.GrpcStorageProxy(host=proxy[1], port=int(proxy[2]))
            storage.wait_server_ready(timeout=_PROXY_ANSWERS_S)
            return storage
    if database.startswith("sqlite"):
        return database
    # A server may close a connection that was idle while an adapter trained.
    return optuna.storages.RDBStorage(database, engine_kwargs={"pool_pre_ping": True})


def fixed_ask(
    study: optuna.Study, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> Trial:
    """A running trial with exactly these parameters."""
    study.sampler = PartialFixedSampler(dict(params), optuna.samplers.RandomSampler(seed=0))
    return study.ask(dict(distributions))


def as_json(value: Any) -> Any:
    """A value as JSON holds it, which is how Optuna gives user attributes back."""
    return json.loads(json.dumps(value))


def recorded(trial: FrozenTrial) -> Mapping[str, Any]:
    """What a trial holds for autotune itself; older run folders have it among the user attributes."""
    found: Mapping[str, Any] = trial.system_attrs.get(RECORD, trial.user_attrs)
    return found


def keep(trial: Trial, **fields: Any) -> None:
    """Add to what a trial holds for autotune itself."""
    storage, number = trial.storage, trial._trial_id
    storage.set_trial_system_attr(number, RECORD, as_json({**recorded(storage.get_trial(number)), **fields}))


def annotate(study: optuna.Study, words: Mapping[str, str]) -> None:
    """Set the study's attributes for people, those that have changed."""
    before = study.user_attrs
    for name, text in words.items():
        if before.get(name) != text:
            study.set_user_attr(name, text)
