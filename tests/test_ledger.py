"""The visible study as people and Optuna read it."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.trial import Trial, TrialState

from autotune import stats
from autotune.constraints import parse
from autotune.search.ledger import Ledger
from autotune.search.optuna_study import annotate, open_study, recorded
from autotune.search.proposals import Proposals
from autotune.storage.entry_key import Key
from autotune.trials import Scored, StageRecord, Stopped
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams
from search_spaces.space import parse_space

POINTS = (DeployParams("int8"), DeployParams("int4"))
LIMITS = (parse("accuracy >= 0.6"), parse("size_mb <= 400"))


def scored(right: int, rows: int, stopped: bool) -> Scored:
    values = {"accuracy": stats.proportion(right, rows), "size_mb": stats.exact(200.0, unit="MB")}
    early = Stopped(rows, 128, right, 90, 0.002) if stopped else None
    return Scored(values, {"answers": StageRecord("answers/1", 1.0, False)}, Key("artifact", "ab"),
                  frozenset({"size_mb"}), early)


def begun(folder: Path) -> tuple[optuna.Study, Ledger, Trial, AdapterParams]:
    """A visible study and its ledger, and an adapter that was proposed."""
    space, _ = parse_space({"adapter": {"rank": [4, 8], "learning_rate": 1e-3}, "deploy": [{"precision": "int8"}]})
    assert space is not None
    database = f"sqlite:///{folder / 'study.db'}"
    proposals = Proposals(open_study(database, "tone/proposals", ["maximize"], ["accuracy"]), space, 0)
    visible = open_study(database, "tone", ["maximize", "minimize"], ["accuracy", "size_mb"])
    ledger = Ledger(visible, POINTS, ["accuracy", "size_mb"], lambda: LIMITS)
    asked = proposals.next()
    assert asked is not None
    return visible, ledger, *asked


def written(folder: Path) -> tuple[optuna.Study, Ledger]:
    """A complete trial, one that was stopped, one that failed; and the ledger that wrote them."""
    visible, ledger, proposal, params = begun(folder)
    ledger.complete(ledger.begin(proposal, params, POINTS[0]), scored(80, 128, False), "adapter/1", {}, [])
    early = scored(12, 32, True)
    assert early.stopped is not None
    ledger.prune(ledger.begin(proposal, params, POINTS[1]), early, "adapter/1", {}, [], early.stopped.sentence())
    ledger.fail(ledger.begin(proposal, params, POINTS[1]), "assemble", "no space left")
    return visible, ledger


def test_people_read_words_and_numbers_with_their_intervals(tmp_path: Path) -> None:
    complete, stopped, failed = written(tmp_path)[0].trials
    assert complete.user_attrs == {
        "adapter": "r 8, alpha 16, lr 0.001, all-linear, 2 epochs", "deploy_point": "int8-b32",
        "accuracy": "0.625 [0.539, 0.704] (n = 128)", "size_mb": "200 MB (n = 1)",
        "feasible": "yes", "accuracy >= 0.6": "INCONCLUSIVE", "size_mb <= 400": "PASS"}
    assert stopped.user_attrs["end_reason"].startswith("answers: stopped after 32 of 128 rows")
    assert "feasible" not in stopped.user_attrs
    assert failed.user_attrs["end_reason"] == "assemble: no space left"


def test_the_study_says_what_it_is_and_writes_only_what_changed(tmp_path: Path) -> None:
    study, ledger = written(tmp_path)
    ledger.annotate({"model": "a model", "front": "no trial"})
    ledger.annotate({"model": "a model", "front": "trial 0"})
    assert study.user_attrs == {"model": "a model", "front": "trial 0"}
    annotate(study, {"front": "trial 0"})
    assert study.user_attrs["model"] == "a model"


def test_a_study_written_before_attributes_were_in_words_is_read_and_gone_on_with(tmp_path: Path) -> None:
    written(tmp_path)
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    before = optuna.create_study(storage=storage, study_name="before", directions=["maximize", "minimize"])
    for trial in optuna.load_study(storage=storage, study_name="tone").trials[:2]:
        old = {**recorded(trial), "deploy_point": trial.user_attrs["deploy_point"]}
        before.add_trial(optuna.trial.create_trial(
            state=trial.state, values=trial.values, params=trial.params, distributions=trial.distributions,
            user_attrs=old))
    running = before.ask()
    for name, found in old.items():
        running.set_user_attr(name, found)
    ledger = Ledger(before, POINTS, ["accuracy", "size_mb"], lambda: LIMITS)
    assert ledger.close_dead() == 1
    assert [(r.adapter.rank, r.deploy.label, r.values["accuracy"].n, r.failure is None) for r in ledger.records()] == [
        (8, "int8-b32", 128, True), (8, "int4-b32", 32, False), (8, "int4-b32", 32, False)]


def test_a_pruned_trial_keeps_what_was_known_and_ranks_by_its_violations(tmp_path: Path) -> None:
    visible, ledger, proposal, params = begun(tmp_path)
    ledger.complete(ledger.begin(proposal, params, POINTS[0]), scored(100, 128, False), "adapter/1", {}, [])
    early = scored(12, 32, True)
    assert early.stopped is not None
    ledger.prune(ledger.begin(proposal, params, POINTS[1]), early, "adapter/1", {}, [], early.stopped.sentence())
    first, second = Ledger(visible, POINTS, ["accuracy", "size_mb"], lambda: LIMITS).records()
    assert (first.state, second.state) == ("COMPLETE", "PRUNED")
    assert second.values["accuracy"].n == 32
    assert second.on_base == {"size_mb"}
    assert second.failure is not None
    assert "12 right, where 90 of all would matter" in second.failure[1]
    assert not second.interrupted
    trial = visible.trials[1]
    assert trial.state == TrialState.PRUNED
    assert trial.constraints["accuracy >= 0.6"] > 0
    assert trial.constraints["size_mb <= 400"] <= 0
