"""The visible study as people and Optuna read it."""

from __future__ import annotations

from pathlib import Path

from optuna.trial import TrialState

from autotune import stats
from autotune.constraints import parse
from autotune.ledger import Ledger
from autotune.proposals import Proposals, open_study
from autotune.store import Key
from autotune.trials import Scored, StageRecord, Stopped
from search_spaces.deploy import DeployParams
from search_spaces.space import parse_space

POINTS = (DeployParams("int8"), DeployParams("int4"))
LIMITS = (parse("accuracy >= 0.6"), parse("size_mb <= 400"))


def scored(right: int, rows: int, stopped: bool) -> Scored:
    values = {"accuracy": stats.proportion(right, rows), "size_mb": stats.exact(200.0, unit="MB")}
    early = Stopped(rows, 128, right, 90, 0.002) if stopped else None
    return Scored(values, {"answers": StageRecord("answers/1", 1.0, False)}, Key("artifact", "ab"),
                  frozenset({"size_mb"}), early)


def test_a_pruned_trial_keeps_what_was_known_and_ranks_by_its_violations(tmp_path: Path) -> None:
    space, _ = parse_space({"adapter": {"rank": [4, 8], "learning_rate": 1e-3}, "deploy": [{"precision": "int8"}]})
    assert space is not None
    database = f"sqlite:///{tmp_path / 'study.db'}"
    proposals = Proposals(open_study(database, "p", ["maximize"], ["accuracy"]), space, 0)
    visible = open_study(database, "v", ["maximize", "minimize"], ["accuracy", "size_mb"])
    ledger = Ledger(visible, POINTS, ["accuracy", "size_mb"], lambda: LIMITS)
    asked = proposals.next()
    assert asked is not None
    proposal, params = asked
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
