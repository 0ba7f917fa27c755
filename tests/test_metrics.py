from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autotune.errors import AutotuneError
from autotune.metrics import ScoreError, load_metric, macro_f1, score

LABELS = ["joy", "fear", "anger"]


@pytest.fixture
def rows() -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(0)
    references = rng.choice(LABELS, 60, p=[0.6, 0.3, 0.1]).tolist()
    predictions = [r if rng.random() < 0.7 else str(rng.choice([*LABELS, "none of them"])) for r in references]
    return predictions, references


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's beside the study, under a name of its own for each test."""
    name = f"my_metrics_{abs(hash(str(tmp_path))) % 10**8}"
    (tmp_path / f"{name}.py").write_text(
        "def lengths(predictions, references):\n    return [float(len(p)) for p in predictions]\n"
        "def share(predictions, references):\n"
        "    return sum(p == r for p, r in zip(predictions, references)) / len(references)\n"
        "def words(predictions, references):\n    return 'many'\n"
        "def short(predictions, references):\n    return [1.0]\n"
        "def broken(predictions, references):\n    raise KeyError('oops')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def test_scoring_does_not_import_evaluate() -> None:
    code = (
        "import sys; from autotune.metrics import score; score('accuracy', ['a'], ['a']);"
        "score('macro_f1', ['a', 'b'], ['a', 'a'], ['a', 'b']); score('exact_match', [' a'], ['a']);"
        "assert not {'evaluate', 'torch', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


def test_accuracy_counts_equal_answers_with_wilson_ends() -> None:
    m = score("accuracy", ["a", "b", "a ", "a"], ["a", "a", "a", "a"])
    assert (m.value, m.n, m.unit) == (0.5, 4, "")
    assert m.low == pytest.approx(0.150, abs=1e-3)
    assert m.high == pytest.approx(0.850, abs=1e-3)


def test_exact_match_forgives_white_space_around_the_answer() -> None:
    assert score("exact_match", [" yes\n", "y es"], ["yes", "yes"]).value == 0.5


def test_macro_f1_is_scikit_learns(rows: tuple[list[str], list[str]]) -> None:
    from sklearn.metrics import f1_score

    predictions, references = rows
    for labels in (LABELS, [*LABELS, "never seen"]):
        expected = f1_score(references, predictions, labels=labels, average="macro", zero_division=0)
        m = score("macro_f1", predictions, references, labels)
        assert m.value == pytest.approx(expected)
        assert m.low is not None
        assert m.high is not None
        assert m.low < m.value < m.high


def test_a_reference_outside_the_labels_is_said() -> None:
    with pytest.raises(ScoreError, match="the reference 'rage'; accepted: joy, fear"):
        score("macro_f1", ["joy", "joy"], ["joy", "rage"], ["joy", "fear"])


def test_answers_must_match_references_in_number() -> None:
    with pytest.raises(ScoreError, match="1 answers for 2 references"):
        score("accuracy", ["a"], ["a", "b"])


def test_built_in_metrics_are_evaluates_own_kind(rows: tuple[list[str], list[str]]) -> None:
    import evaluate

    predictions, references = rows
    for name in ("accuracy", "macro_f1", "exact_match"):
        metric = load_metric(name)
        assert isinstance(metric, evaluate.Metric)
        found = metric.compute(predictions=predictions, references=references)
        assert found == {name: pytest.approx(score(name, predictions, references).value)}
    with_labels = load_metric("macro_f1").compute(  # type: ignore[call-arg]
        predictions=predictions, references=references, labels=[*LABELS, "never seen"]
    )
    assert with_labels == {"macro_f1": pytest.approx(macro_f1(predictions, references, [*LABELS, "never seen"]))}


def test_a_users_function_may_give_one_number_a_row(user_module: str) -> None:
    m = score(f"{user_module}:lengths", ["a", "bbb", "bb"], ["", "", ""])
    assert (m.value, m.n) == (2.0, 3)
    assert m.low is not None
    assert m.high is not None
    assert 1 <= m.low <= 2 <= m.high <= 3


def test_a_users_function_may_give_a_number(user_module: str, rows: tuple[list[str], list[str]]) -> None:
    m, accuracy = score(f"{user_module}:share", *rows), score("accuracy", *rows)
    assert m.value == accuracy.value
    assert m.low is not None
    assert m.high is not None
    # The bootstrap and Wilson's formula answer the same question.
    assert (m.low, m.high) == (pytest.approx(accuracy.low, abs=0.06), pytest.approx(accuracy.high, abs=0.06))


@pytest.mark.parametrize(
    ("function", "reason"),
    [("words", "gave 'many'; accepted: a finite number"), ("short", "one for each row"), ("broken", "KeyError")],
)
def test_a_users_function_that_fails_fails_the_trial(user_module: str, function: str, reason: str) -> None:
    with pytest.raises(ScoreError, match=reason):
        score(f"{user_module}:{function}", ["a", "b"], ["a", "b"])


def test_a_metric_that_is_not_there_is_said_before_any_work(user_module: str) -> None:
    with pytest.raises(AutotuneError, match="has no function 'length', did you mean 'lengths'"):
        load_metric(f"{user_module}:length")
    with pytest.raises(AutotuneError, match="module 'no_such_module' cannot be imported"):
        load_metric("no_such_module:f")


@pytest.mark.parametrize("name", ["someone/metric", "./metric.py"])
def test_code_of_strangers_and_of_paths_is_not_run(name: str) -> None:
    with pytest.raises(AutotuneError, match="is not run; accepted: accuracy"):
        load_metric(name)


def test_a_metric_of_evaluates_without_its_hub_is_a_clear_error(tmp_path: Path) -> None:
    code = (
        "from autotune.errors import AutotuneError\nfrom autotune.metrics import load_metric\n"
        "try:\n load_metric('evaluate:rouge')\nexcept AutotuneError as e:\n print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9",
             "HF_EVALUATE_OFFLINE": "1"},
    )
    assert "metric 'rouge': evaluate cannot load it here" in done.stdout
    assert "module:function" in done.stdout
    assert done.stderr == ""


def test_one_of_several_numbers_is_named_after_a_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    from autotune import metrics

    class Several:
        def compute(self, *, predictions: list[str], references: list[str]) -> dict[str, float]:
            return {"rouge1": 0.25, "rougeL": 0.5}

    # The real one needs the network; what is tested is how its answer is read.
    monkeypatch.setattr(metrics, "_hub_metric", lambda name: Several())
    assert score("evaluate:rouge.rougeL", ["a", "b"], ["a", "b"]).value == 0.5
    with pytest.raises(AutotuneError, match=r"several numbers; accepted: rouge\.rouge1, rouge\.rougeL"):
        score("rouge", ["a", "b"], ["a", "b"])
