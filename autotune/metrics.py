"""Answers against references: the built-in metrics, a user's function, or one of Hugging Face's ``evaluate``.

``evaluate`` is imported inside functions alone: it brings torch and datasets and takes seconds.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autotune.errors import AutotuneError, ScoreError, nearest
from autotune.pipeline.silence import silenced
from autotune.stats import Measurement, bootstrap, mean, proportion
from objectives.base import ROW_SHARES, SHARES

BUILT_IN = SHARES

#: Metrics that are not ours are called once a resample: fewer of them, and none where they would take longer.
_FOREIGN_RESAMPLES = 200
_FOREIGN_SECONDS = 20.0


class Metric(Protocol):
    """What ``load_metric`` returns: an ``evaluate.Metric``, or something with its ``compute``."""

    def compute(self, *, predictions: Sequence[str], references: Sequence[str]) -> Mapping[str, Any] | None: ...


def score(
    name: str, predictions: Sequence[str], references: Sequence[str], labels: Sequence[str] = (),
    confidence: float = 0.95,
) -> Measurement:
    """One metric of one answer and one reference a row, with its interval.

    Wilson for ``accuracy`` and ``exact_match``; percentile bootstrap over rows for the others, of the mean
    where a metric gives one score a row. ``labels`` is the study's label set, used by ``macro_f1``. A
    metric that is too slow to be computed many times has no interval. Raises AutotuneError for a metric that
    cannot be had and ScoreError for one that fails on these answers.
    """
    name, n = name.removeprefix("evaluate:"), len(references)
    if len(predictions) != n or not n:
        raise ScoreError(f"{name}: {len(predictions)} answers for {n} references; accepted: one each, at least one")
    if name in ROW_SHARES:
        right = _equal(predictions, references, strip=name == "exact_match")
        return proportion(int(right.sum()), n, confidence)
    if name == "macro_f1":
        labels = labels or sorted(set(references))
        guessed, true = _codes(predictions, labels), _reference_codes(references, labels)
        return bootstrap(lambda rows: _macro_f1(guessed[rows], true[rows], len(labels)), n, confidence)
    return _score_foreign(name, predictions, references, confidence)


def load_metric(name: str) -> Metric:
    """A built-in name, a user's ``module:function``, or a name of ``evaluate``'s own metrics.

    The function is called with two lists of texts, predictions and references, and returns a number or one
    number a row. A metric of ``evaluate`` that gives several numbers is named with the one that is wanted,
    ``rouge.rougeL``; ``evaluate:`` may stand before it. Raises AutotuneError when it cannot be had.
    """
    name = name.removeprefix("evaluate:")
    if name in BUILT_IN:
        built: Metric = _built_in_class(name)(keep_in_memory=True)
        return built
    if ":" in name:
        return _UserMetric(name, _user_function(name))
    return _hub_metric(name if "/" in name or os.sep in name else name.partition(".")[0])


def accuracy(predictions: Sequence[str], references: Sequence[str]) -> float:
    """The part of the answers that equal their reference."""
    return float(_equal(predictions, references, strip=False).mean())


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> float:
    """The part of the answers that equal their reference but for white space around them."""
    return float(_equal(predictions, references, strip=True).mean())


def macro_f1(predictions: Sequence[str], references: Sequence[str], labels: Sequence[str] = ()) -> float:
    """The mean over ``labels`` (default: those of the references) of each one's F1.

    A label that is neither in the references nor predicted counts as 0, as in scikit-learn's
    ``f1_score(average="macro", labels=labels, zero_division=0)``. Raises ScoreError for a reference that is
    no label; an answer that is none is wrong.
    """
    labels = labels or sorted(set(references))
    return _macro_f1(_codes(predictions, labels), _reference_codes(references, labels), len(labels))


def _equal(predictions: Sequence[str], references: Sequence[str], strip: bool) -> NDArray[np.bool_]:
    pairs = zip(predictions, references, strict=True)
    return np.array([p.strip() == r.strip() if strip else p == r for p, r in pairs], dtype=np.bool_)


def _codes(texts: Sequence[str], labels: Sequence[str]) -> NDArray[np.intp]:
    """Index of each text in the labels; one past the last for a text that is none of them."""
    index = {label: i for i, label in enumerate(labels)}
    return np.array([index.get(t, len(labels)) for t in texts], dtype=np.intp)


def _reference_codes(references: Sequence[str], labels: Sequence[str]) -> NDArray[np.intp]:
    codes = _codes(references, labels)
    if (strange := np.flatnonzero(codes == len(labels))).size:
        raise ScoreError(f"macro_f1: the reference {references[strange[0]]!r}; accepted: {', '.join(labels)}")
    return codes


def _macro_f1(guessed: NDArray[np.intp], true: NDArray[np.intp], labels: int) -> float:
    hits = np.bincount(true[guessed == true], minlength=labels + 1)[:labels]
    both = np.bincount(guessed, minlength=labels + 1)[:labels] + np.bincount(true, minlength=labels + 1)[:labels]
    return float(np.divide(2 * hits, both, out=np.zeros(labels), where=both > 0).mean())


def _score_foreign(
    name: str, predictions: Sequence[str], references: Sequence[str], confidence: float
) -> Measurement:
    metric, n = load_metric(name), len(references)

    def of(rows: NDArray[np.intp]) -> float | NDArray[np.float64]:
        return _compute(metric, name, [predictions[i] for i in rows], [references[i] for i in rows])

    start = time.monotonic()
    whole = of(np.arange(n))
    seconds = time.monotonic() - start
    if not isinstance(whole, float):
        return mean(whole.tolist(), confidence)
    if seconds * _FOREIGN_RESAMPLES > _FOREIGN_SECONDS:
        return Measurement(whole, None, None, n, "")

    def resampled(rows: NDArray[np.intp]) -> float:
        # Some metrics are not defined on every resample (a correlation of equal answers): then no interval.
        try:
            return float(np.mean(of(rows)))
        except ScoreError:
            return math.nan

    return bootstrap(resampled, n, confidence, resamples=_FOREIGN_RESAMPLES)


def _compute(
    metric: Metric, name: str, predictions: Sequence[str], references: Sequence[str]
) -> float | NDArray[np.float64]:
    """The metric's number, or one a row. Raises ScoreError when it fails or gives neither."""
    try:
        with silenced():
            found = dict(metric.compute(predictions=predictions, references=references) or {})
    except Exception as error:  # code that is not ours: the trial fails, the study goes on
        raise ScoreError(f"{name} failed: {type(error).__name__}: {error}") from error
    value = found[_key(name, found)]
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.shape not in ((), (len(references),)) or not np.isfinite(array).all():
        raise ScoreError(f"{name} gave {str(value)[:60]!r}; accepted: a finite number, or one for each row")
    return array if array.shape else float(array)


def _key(name: str, found: Mapping[str, Any]) -> str:
    head, _, tail = ("", "", name) if ":" in name else name.partition(".")
    wanted = tail or head
    if wanted in found:
        return wanted
    if len(found) == 1 and not (tail and head):
        return next(iter(found))
    choices = ", ".join(f"{head}.{key}" for key in found)
    raise AutotuneError(f"metric {name!r}: it gives several numbers; accepted: {choices}")


@dataclass(frozen=True)
class _UserMetric:
    name: str
    function: Callable[[list[str], list[str]], Any]

    def compute(self, *, predictions: Sequence[str], references: Sequence[str]) -> Mapping[str, Any]:
        return {self.name: self.function(list(predictions), list(references))}


def _user_function(name: str) -> Callable[[list[str], list[str]], Any]:
    module_name, _, function_name = name.partition(":")
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise AutotuneError(
            f"metric {name!r}: module {module_name!r} cannot be imported ({type(error).__name__}: {error}); "
            "accepted: an installed module or a file in the current folder"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise AutotuneError(
            f"metric {name!r}: {module_name!r} has no function {function_name!r}{nearest(function_name, names)}; "
            f"accepted: {', '.join(names) or 'nothing, the module is empty'}"
        )
    chosen: Callable[[list[str], list[str]], Any] = function
    return chosen


def _hub_metric(name: str) -> Metric:
    if "/" in name or os.sep in name:
        # evaluate runs the Python file it finds there.
        raise AutotuneError(
            f"metric {name!r}: code of other people or of a path is not run; accepted: {', '.join(BUILT_IN)}, "
            "a metric of evaluate's own by its bare name, or module:function for code of yours"
        )
    try:
        with silenced():
            import evaluate

            metric: Metric = evaluate.load(name, keep_in_memory=True)
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise AutotuneError(
            f"metric {name!r}: evaluate cannot load it here ({type(error).__name__}: {said}); "
            f"accepted: {', '.join(BUILT_IN)}, module:function, or a metric of evaluate's when its hub can be reached"
        ) from error
    return metric


def _built_in_class(name: str) -> Any:
    """Our metric as a subclass of ``evaluate.Metric``, which needs no hub."""
    with silenced():
        import datasets
        import evaluate

    function = {"accuracy": accuracy, "macro_f1": macro_f1, "exact_match": exact_match}[name]

    def info(self: Any) -> Any:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=function.__doc__ or "", citation="", inputs_description="Two lists of texts.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def compute(self: Any, predictions: list[str], references: list[str], **options: Any) -> dict[str, float]:
        return {name: function(predictions, references, **options)}

    return type(name.title().replace("_", ""), (evaluate.Metric,), {"_info": info, "_compute": compute})
