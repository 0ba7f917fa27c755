"""What a results.json came to: in a sentence, in a word, and as the command's exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from autotune.constraints import parse
from autotune.finished import measurement
from autotune.pareto import Miss, Policy
from autotune.report.outcome import Outcome, hopeless_sentence, sentence

EXIT_SELECTED, EXIT_FAILED, EXIT_NOTHING_FITS, EXIT_INCONCLUSIVE = 0, 1, 3, 4
Verdict = Literal["selected", "failed", "nothing fits", "inconclusive"]
VERDICTS: dict[int, Verdict] = {EXIT_SELECTED: "selected", EXIT_FAILED: "failed", EXIT_NOTHING_FITS: "nothing fits",
                                EXIT_INCONCLUSIVE: "inconclusive"}


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
        return searched(document)
    found: Sequence[str] = certificate["text"]
    return found[-1] if certificate["verdict"] == "PASS" else found[0]


def outcome(document: Mapping[str, Any]) -> str:
    """Everything that a results.json says of its choice: the certificate's text where there is one."""
    if document["certificate"] is not None:
        return " ".join(line.strip() for line in document["certificate"]["text"])
    return searched(document)


def searched(document: Mapping[str, Any]) -> str:
    """The search's own answer, whatever a certificate says."""
    trials, chosen, found = document["trials"], document["selected"], document["nearest_miss"]
    if _no_point_left(document):
        if found is None:
            return "No deploy point can meet the limits, so nothing was trained."
        return hopeless_sentence(found["deploy_point"], _miss(document, found), found["unit"])
    miss = _miss(document, found) if found and found["trial"] is not None and not chosen else None
    policy: Policy = chosen["policy"] if chosen else "most-accurate"
    units = {o["name"]: o["unit"] for o in document["objectives"]}
    units |= {c["objective"]: c["unit"] for c in document["constraints"]}
    return sentence(
        {t["number"]: t["deploy_point"] for t in trials},
        {t["number"]: {key: measurement(value) for key, value in t["values"].items()} for t in trials},
        [o["name"] for o in document["objectives"]], [parse(c["expr"]) for c in document["constraints"]],
        Outcome(tuple(document["front"]), chosen["trial"] if chosen else None, policy, miss), units)


def _miss(document: Mapping[str, Any], found: Mapping[str, Any]) -> Miss:
    limit = next(c for c in document["constraints"] if c["expr"] == found["expr"])
    return Miss(found["trial"] or 0, limit["expr"], limit["objective"], found["shortfall"], limit["bound"])


def _no_point_left(document: Mapping[str, Any]) -> bool:
    return bool(not document["trials"] and document["dropped"] and not document["deploy_points"])
