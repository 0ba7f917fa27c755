"""What a study came to: in a sentence, in a word, and as the command's exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from autotune.pareto import Miss
from autotune.report.wording import figure, join, missed_by, number, with_unit

EXIT_SELECTED, EXIT_FAILED, EXIT_NOTHING_FITS, EXIT_INCONCLUSIVE = 0, 1, 3, 4
Verdict = Literal["selected", "failed", "nothing fits", "inconclusive"]
VERDICTS: dict[int, Verdict] = {EXIT_SELECTED: "selected", EXIT_FAILED: "failed", EXIT_NOTHING_FITS: "nothing fits",
                                EXIT_INCONCLUSIVE: "inconclusive"}
NO_POINT = "No deploy point can meet the limits, so nothing was trained."
NOTHING_COMPLETE = "No trial was completed, so there is nothing to choose."


def exit_code(document: Mapping[str, Any]) -> int:
    """The command's exit code for a results.json."""
    if _no_point_left(document):
        return EXIT_NOTHING_FITS
    if not any(t["state"] == "COMPLETE" for t in document["trials"]):
        return EXIT_FAILED
    if document["certificate"] is not None:
        return {"PASS": EXIT_SELECTED, "INCONCLUSIVE": EXIT_INCONCLUSIVE, "FAIL": EXIT_NOTHING_FITS}[
            document["certificate"]["verdict"]]
    return EXIT_NOTHING_FITS if document["selected"] is None else EXIT_SELECTED


def headline(document: Mapping[str, Any]) -> str:
    """What a results.json says in its first sentences: of finalists that were passed over nothing."""
    certificate = document["certificate"]
    if certificate is None:
        return outcome(document)
    found: Sequence[str] = certificate["text"]
    return found[-1] if certificate["verdict"] == "PASS" else found[0]


def outcome(document: Mapping[str, Any]) -> str:
    """Everything that a results.json says of its choice: the certificate's text where there is one."""
    if document["certificate"] is not None:
        return " ".join(line.strip() for line in document["certificate"]["text"])
    trials = {t["number"]: t for t in document["trials"]}
    if document["selected"] is not None:
        found = document["selected"]
        chosen = trials[found["trial"]]
        values = [f"{o['name']} {number(chosen['values'][o['name']]['value'])}{with_unit(o['unit'])}"
                  for o in document["objectives"]]
        return chosen_sentence("Chosen", found["trial"], chosen["deploy_point"], found["policy"],
                               len(document["front"]), values, [c["expr"] for c in document["constraints"]])
    if document["nearest_miss"] is None:
        return NO_POINT if _no_point_left(document) else NOTHING_COMPLETE
    found = document["nearest_miss"]
    limit = next(c for c in document["constraints"] if c["expr"] == found["expr"])
    miss = Miss(found["trial"] or 0, found["expr"], limit["objective"], found["shortfall"], limit["bound"])
    if found["trial"] is None:  # the miss is a deploy point's
        return no_point_sentence(found["deploy_point"], miss, found["unit"])
    nearest = trials[found["trial"]]
    return nearest_sentence(found["trial"], nearest["deploy_point"], miss, found["unit"],
                            nearest["values"][miss.objective]["value"])


def _no_point_left(document: Mapping[str, Any]) -> bool:
    return bool(not document["trials"] and document["dropped"] and not document["deploy_points"])


def chosen_sentence(
    word: str, trial: int, label: str, policy: str, on_front: int, values: Sequence[str], limits: Sequence[str]
) -> str:
    """``word`` says how final the choice is; ``values`` are the objectives', each with its name."""
    among = f" ({policy} of {on_front} on the front)" if on_front > 1 else ""
    meets = f" and meets {join(limits)}" if limits else ""
    return f"{word}: trial {trial}, {label}{among}: {', '.join(values)}{meets}."


def nearest_sentence(trial: int, label: str, miss: Miss, unit: str, value: float) -> str:
    """Where trials were complete and none meets the limits."""
    return (f"Nothing meets the limits. Nearest: trial {trial}, {label}, {missed_by(miss, unit)}; "
            f"{miss.objective} was {figure(value)}{with_unit(unit)}.")


def no_point_sentence(label: str, miss: Miss, unit: str) -> str:
    """Where no deploy point can meet the limits."""
    return ("Nothing can meet the limits, whatever the adapter, so nothing was trained. Nearest: "
            f"{label}, which {missed_by(miss, unit)} on the base model.")
