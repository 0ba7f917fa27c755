"""The closed label set of a ``choice`` task: given, or the answers of the training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotune.errors import DataError, Problem, nearest
from autotune.pipeline.data import Row

MOST_INFERRED = 200


def choose_labels(
    given: Sequence[str] | None, rows: Mapping[str, Sequence[Row]], answers: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, ...], list[Problem]]:
    """The labels, and a problem for each row whose answer is none of them.

    Given labels keep their order, inferred ones are sorted. ``answers[split][i]`` is the rendered
    answer of ``rows[split][i]``.

    Raises:
        DataError: fewer than two labels, one twice, or too many different answers to be labels.
    """
    labels = _given(given) if given is not None else _inferred(rows["train"], answers["train"])
    known = set(labels)
    problems = []
    for split, members in rows.items():
        for row, answer in zip(members, answers[split], strict=True):
            if answer not in known:
                found = f"answer {_short(answer)} is no label{nearest(answer, labels)}"
                accepted = ", ".join(labels) if len(labels) <= 20 else f"one of the {len(labels)} labels"
                problems.append(Problem(row.file, row.where, found, accepted))
    return labels, problems


def _given(labels: Sequence[str]) -> tuple[str, ...]:
    if len(labels) < 2:
        raise DataError([Problem("labels", "", f"{len(labels)} label(s)", "at least two labels")])
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise DataError([Problem("labels", "", f"{twice[0]!r} twice", "different labels")])
    blank = [label for label in labels if not label.strip()]
    if blank:
        raise DataError([Problem("labels", "", f"the blank label {blank[0]!r}", "labels with text")])
    return tuple(labels)


def _inferred(rows: Sequence[Row], answers: Sequence[str]) -> tuple[str, ...]:
    labels = tuple(sorted(set(answers)))
    file = rows[0].file if rows else "train"
    if len(labels) < 2:
        found = f"one answer in every training row ({_short(labels[0])})" if labels else "no training row"
        raise DataError([Problem(file, "", found, "training answers of at least two labels")])
    if len(labels) > MOST_INFERRED:
        found = f"{len(labels)} different training answers, too many to be labels"
        accepted = f"task: generate, at most {MOST_INFERRED} different answers, or labels given in the study"
        raise DataError([Problem(file, "", found, accepted)])
    return labels


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
